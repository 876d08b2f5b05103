// SPDX-License-Identifier: MPL-2.0

// The official openai package, unmodified, against any base URL. Nothing here
// asserts times: through Vault's inline path a stream arrives all at once.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import OpenAI from 'openai';
import { settings } from './settings.js';

function client(baseURL = settings.baseURL) {
  return new OpenAI({ baseURL, apiKey: settings.apiKey, maxRetries: 0, timeout: 60_000 });
}

const messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Say hello, größtenteils in English. 👋' },
];

function chat(extra = {}, baseURL) {
  return client(baseURL).chat.completions.create({ model: settings.model, messages, ...extra });
}

// assertAnswer checks a text against what the model is known to say.
function assertAnswer(text) {
  assert.equal(typeof text, 'string');
  assert.notEqual(text, '');
  if (settings.answer) {
    assert.equal(text, settings.answer);
  }
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) {
    chunks.push(chunk);
  }
  return chunks;
}

describe('completions', () => {
  test('chat', async () => {
    const answer = await chat();
    assert.equal(answer.object, 'chat.completion');
    assertAnswer(answer.choices[0].message.content);
    assert.equal(answer.choices[0].finish_reason, 'stop');
    assert.ok(answer.usage.prompt_tokens > 0);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  });

  test('chat with a cap ends with length', async () => {
    const answer = await chat({ max_completion_tokens: 2 });
    assert.equal(answer.choices[0].finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 2);
  });

  test('streamed chat joins to the same text and has no usage unasked', async () => {
    const whole = await chat();
    const chunks = await collect(await chat({ stream: true }));
    assert.ok(chunks.length > 2, `${chunks.length} chunks`);
    const text = chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');
    assert.equal(text, whole.choices[0].message.content);
    assert.ok(chunks.every((c) => !c.usage && c.choices.length === 1));
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  });

  test('streamed chat with include_usage ends with the same usage', async () => {
    const whole = await chat();
    const chunks = await collect(await chat({ stream: true, stream_options: { include_usage: true } }));
    const text = chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(chunks.filter((c) => c.usage).length, 1);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.deepEqual(chunks.at(-1).usage, whole.usage);
  });

  test('completion', async () => {
    const answer = await client().completions.create({ model: settings.model, prompt: 'Say hello.' });
    assert.equal(answer.object, 'text_completion');
    assertAnswer(answer.choices[0].text);
    assert.ok(answer.usage.completion_tokens > 0);
  });

  test('response', async () => {
    const answer = await client().responses.create({ model: settings.model, input: 'Say hello.' });
    assert.equal(answer.status, 'completed');
    assertAnswer(answer.output_text);
    assert.ok(answer.usage.output_tokens > 0);
  });

  test('streamed response', async () => {
    const whole = await client().responses.create({ model: settings.model, input: 'Say hello.' });
    const events = await collect(
      await client().responses.create({ model: settings.model, input: 'Say hello.', stream: true }),
    );
    const text = events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join('');
    assert.equal(text, whole.output_text);
    assert.equal(events.at(-1).type, 'response.completed');
    assert.deepEqual(events.at(-1).response.usage, whole.usage);
  });
});

describe('embeddings', () => {
  const dimensions = 64;
  const input = ['hello', 'world'];
  // The SDK asks for base64 by itself and decodes it, unless told otherwise.
  for (const encoding_format of [undefined, 'float']) {
    test(`embeddings, ${encoding_format ?? "the SDK's own encoding"}`, async () => {
      const answer = await client().embeddings.create({
        model: settings.embeddingModel, input, dimensions, encoding_format,
      });
      assert.deepEqual(answer.data.map((d) => d.index), [0, 1]);
      for (const { embedding } of answer.data) {
        assert.equal(embedding.length, dimensions);
        assert.ok(embedding.every(Number.isFinite));
        const length = Math.hypot(...embedding);
        assert.ok(Math.abs(length - 1) < 1e-3, `a vector of length ${length}`);
      }
      assert.ok(answer.usage.total_tokens > 0);
    });
  }
});

test('models', async () => {
  const ids = [];
  for await (const model of await client().models.list()) {
    assert.equal(model.object, 'model');
    ids.push(model.id);
  }
  assert.ok(ids.length > 0);
});

// failure is the exception that a call ends with.
async function failure(call) {
  try {
    await call;
  } catch (err) {
    return err;
  }
  return assert.fail('the call succeeded');
}

// assertReadable checks that an exception says in words what went wrong.
function assertReadable(err, status) {
  assert.equal(err.status, status);
  assert.match(err.message, new RegExp(`^${status} \\S+ \\S+ \\S+`));
  assert.doesNotMatch(err.message, /no body|^\d+ \{/);
}

describe("a provider's error arrives as the SDK's own exception", () => {
  for (const [status, type] of [
    [400, OpenAI.BadRequestError],
    [401, OpenAI.AuthenticationError],
    [404, OpenAI.NotFoundError],
    [429, OpenAI.RateLimitError],
    [500, OpenAI.InternalServerError],
  ]) {
    for (const stream of [false, true]) {
      test(`${status}${stream ? ', streamed' : ''} is ${type.name}`, async () => {
        const err = await failure(chat({ model: settings.errorModel(status), stream }));
        assert.ok(err instanceof type, String(err));
        assertReadable(err, status);
        assert.ok(err.type, 'no type');
      });
    }
  }
});

describe('a refusal', () => {
  test('of a model is PermissionDeniedError that names it', async () => {
    const err = await failure(chat({ model: settings.deniedModel }));
    assert.ok(err instanceof OpenAI.PermissionDeniedError, String(err));
    assertReadable(err, 403);
    assert.ok(err.message.includes(settings.deniedModel), err.message);
    assert.equal(err.code, 'model_not_allowed');
  });

  test("by Vault's policy is PermissionDeniedError", async () => {
    // Vault answers with {"errors":[…]} and no "error", of which this SDK
    // shows the status alone: "403 status code (no body)". So the words are
    // looked for in the answer itself.
    const err = await failure(chat({}, settings.deniedBaseURL));
    assert.ok(err instanceof OpenAI.PermissionDeniedError, String(err));
    assert.equal(err.status, 403);
    assert.match(err.message, /^403 /);
    const answer = await fetch(`${settings.deniedBaseURL}/chat/completions`, {
      method: 'POST',
      headers: { 'Authorization': `Bearer ${settings.apiKey}`, 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: settings.model, messages }),
    });
    assert.equal(answer.status, 403);
    assert.match((await answer.json()).errors.join(), /permission denied/);
  });

  test('of an unknown virtual key is NotFoundError that names it', async () => {
    const err = await failure(chat({}, settings.missingBaseURL));
    assert.ok(err instanceof OpenAI.NotFoundError, String(err));
    assertReadable(err, 404);
    assert.equal(err.code, 'virtual_key_not_found');
    assert.ok(err.message.includes(settings.missingRole), err.message);
  });
});
