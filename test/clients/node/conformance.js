// SPDX-License-Identifier: MPL-2.0

// One table of calls: how a package is called, what the provider must receive of
// it, and what the package must return. README.md says how it is run, and what it
// reports.

import assert from 'node:assert/strict';
import { createReadStream } from 'node:fs';
import { text as textOf } from 'node:stream/consumers';
import OpenAI from 'openai';
import { Portkey } from 'portkey-ai';

const model = 'up-ok';
const hello = 'Hello from the upstream.';
const messages = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Größe? 👋' }];
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
};
const schema = {
  type: 'json_schema',
  json_schema: { name: 'a', strict: true, schema: { type: 'object', properties: {}, additionalProperties: false } },
};
const usageOf = ({ prompt_tokens, completion_tokens }) => [prompt_tokens, completion_tokens];

// collect is all that a stream yields.
async function collect(stream) {
  const all = [];
  for await (const chunk of await stream) {
    all.push(chunk);
  }
  return all;
}

// textOfChunks is the text of a streamed chat or completion.
const textOfChunks = (chunks) => chunks.map((c) => c.choices[0]?.delta?.content ?? c.choices[0]?.text ?? '').join('');

const unit = (vector) => Math.abs(Math.hypot(...vector) - 1) < 1e-3;

// The table. call makes the call and returns what is compared with gives. sent is
// what the provider must receive: exactly these members, `of` those that one package
// adds or changes. A form can't pass through Vault, which takes JSON objects only.
const cases = [
  {
    name: 'chat',
    call: async (sdk) => {
      const a = await sdk.chat.completions.create({ model, messages, max_tokens: 50, temperature: 0.25 });
      return [a.object, a.choices[0].message.content, a.choices[0].finish_reason, usageOf(a.usage)];
    },
    gives: ['chat.completion', hello, 'stop', [6, 5]],
    sent: { path: '/v1/chat/completions', body: { model, messages, max_tokens: 50, temperature: 0.25 } },
  },
  {
    name: 'chat with tools and a schema',
    call: async (sdk) => {
      const a = await sdk.chat.completions.create({ model, messages, tools: [weather], tool_choice: 'required', response_format: schema });
      const { name, arguments: given } = a.choices[0].message.tool_calls[0].function;
      return [a.choices[0].finish_reason, name, JSON.parse(given)];
    },
    gives: ['tool_calls', 'weather', { city: 'Paris' }],
    sent: { path: '/v1/chat/completions', body: { model, messages, tools: [weather], tool_choice: 'required', response_format: schema } },
  },
  {
    name: 'streamed chat',
    call: async (sdk) => {
      const chunks = await collect(sdk.chat.completions.create({ model, messages, stream: true }));
      return [textOfChunks(chunks), chunks.some((c) => c.usage), chunks.at(-1).choices[0].finish_reason];
    },
    gives: [hello, false, 'stop'],
    sent: { path: '/v1/chat/completions', body: { model, messages, stream: true, stream_options: { include_usage: true } } },
  },
  {
    name: 'streamed chat with usage',
    call: async (sdk) => {
      const chunks = await collect(sdk.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } }));
      return [textOfChunks(chunks), chunks.at(-1).choices, usageOf(chunks.at(-1).usage)];
    },
    gives: [hello, [], [6, 5]],
    sent: { path: '/v1/chat/completions', body: { model, messages, stream: true, stream_options: { include_usage: true } } },
  },
  {
    name: 'streamed chat with comments and odd splits',
    call: async (sdk) => textOfChunks(await collect(sdk.chat.completions.create({ model: 'up-comments', messages, stream: true }))),
    gives: hello,
    sent: { path: '/v1/chat/completions', body: { model: 'up-comments', messages, stream: true, stream_options: { include_usage: true } } },
  },
  {
    name: 'completion',
    call: async (sdk) => {
      const a = await sdk.completions.create({ model, prompt: 'Say hello.', max_tokens: 3 });
      return [a.object, a.choices[0].text, a.choices[0].finish_reason, usageOf(a.usage)];
    },
    gives: ['text_completion', 'Hello from the', 'length', [3, 3]],
    sent: { path: '/v1/completions', body: { model, prompt: 'Say hello.', max_tokens: 3 } },
  },
  {
    name: 'streamed completion',
    call: async (sdk) => textOfChunks(await collect(sdk.completions.create({ model, prompt: 'Say hello.', stream: true }))),
    gives: hello,
    sent: { path: '/v1/completions', body: { model, prompt: 'Say hello.', stream: true, stream_options: { include_usage: true } } },
  },
  {
    name: 'embeddings',
    call: async (sdk) => {
      const a = await sdk.embeddings.create({ model, input: ['hello', 'world'], dimensions: 64 });
      return [a.data.map((d) => [d.index, d.embedding.length, unit(d.embedding)]), a.usage.total_tokens];
    },
    gives: [[[0, 64, true], [1, 64, true]], 3],
    sent: { path: '/v1/embeddings', body: { model, input: ['hello', 'world'], dimensions: 64 }, of: { openai: { encoding_format: 'base64' } } },
  },
  {
    name: 'image',
    call: async (sdk) => {
      const a = await sdk.images.generate({ model, prompt: 'A cat.', size: '1024x1024' });
      return [a.data[0].b64_json, a.usage.output_tokens];
    },
    gives: ['aW1hZ2U=', 7],
    sent: { path: '/v1/images/generations', body: { model, prompt: 'A cat.', size: '1024x1024' } },
  },
  {
    name: 'transcription',
    form: true,
    call: async (sdk, recording) => (await sdk.audio.transcriptions.create({ model, file: createReadStream(recording), language: 'en' })).text,
    gives: hello,
    sent: { path: '/v1/audio/transcriptions', body: { model, language: 'en', file: '(the recording)' } },
  },
  {
    name: 'speech',
    call: async (sdk) => {
      const a = await sdk.audio.speech.create({ model, input: 'Hello.', voice: 'alloy' });
      return Buffer.from(await a.arrayBuffer()).toString('hex');
    },
    gives: 'fffb90640000ff00',
    sent: { path: '/v1/audio/speech', body: { model, input: 'Hello.', voice: 'alloy' } },
  },
  {
    name: 'moderation',
    call: async (sdk) => (await sdk.moderations.create({ model, input: 'hello' })).results[0].flagged,
    gives: false,
    sent: { path: '/v1/moderations', body: { model, input: 'hello' } },
  },
  {
    name: 'response',
    call: async (sdk) => {
      const a = await sdk.responses.create({ model, input: 'Say hello.', instructions: 'Be brief.', max_output_tokens: 50 });
      return [a.status, a.output_text, a.usage.input_tokens, a.usage.output_tokens];
    },
    gives: ['completed', hello, 5, 5],
    sent: { path: '/v1/responses', body: { model, input: 'Say hello.', instructions: 'Be brief.', max_output_tokens: 50 } },
  },
  {
    name: 'streamed response',
    call: async (sdk) => {
      const events = await collect(sdk.responses.create({ model, input: 'Say hello.', stream: true }));
      return [
        events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join(''),
        events.at(-1).type, events.at(-1).response.usage.output_tokens,
      ];
    },
    gives: [hello, 'response.completed', 5],
    sent: { path: '/v1/responses', body: { model, input: 'Say hello.', stream: true } },
  },
  {
    name: 'models',
    call: async (sdk) => (await sdk.models.list()).data.map((m) => m.id),
    gives: ['up-ok', 'gpt-4o-mini', 'gpt-4o', 'text-embedding-3-small'],
    sent: { method: 'GET', path: '/v1/models' },
  },
];

// What only portkey-ai does.
const portkeyCases = [
  {
    name: 'parameters in camel case',
    call: async (sdk) => (await sdk.chat.completions.create({ model, messages, maxTokens: 2 })).choices[0].finish_reason,
    gives: 'length',
    sent: { path: '/v1/chat/completions', body: { model, messages, max_tokens: 2 } },
  },
  {
    name: "the answer's headers",
    call: async (sdk) => {
      const a = await sdk.chat.completions.create({ model, messages });
      return [/^[\w-]{8,}$/.test(a.getHeaders()['trace-id']), a.getHeaders().cost];
    },
    gives: [true, '0.000065041'], // 6 tokens at 2.501 and 5 at 10.007 USD per million
    sent: { path: '/v1/chat/completions', body: { model, messages } },
    gatewayOnly: true, // Vault passes headers on that its mount was told to
  },
];

// What is done with a prompt template: a message with the variable name, version 1 of
// two, of which version 2 is published and says "Greet", and max_tokens is locked.
const variables = { name: 'Ada "the" 👋' };
const rendered = (verb) => [{ role: 'user', content: `${verb} ${variables.name}.` }];
const templateSent = (verb, more) => ({ path: '/v1/chat/completions', body: { model, temperature: 0.25, messages: rendered(verb), ...more } });
const promptCases = (promptID) => [
  {
    name: 'completion of a template',
    call: async (sdk) => {
      const a = await sdk.prompts.completions.create({ promptID, variables });
      return [a.object, a.choices[0].message.content];
    },
    gives: ['chat.completion', hello],
    sent: templateSent('Greet', { stream: false }), // the package always says which
  },
  {
    name: 'streamed completion of a template',
    call: async (sdk) => textOfChunks(await collect(sdk.prompts.completions.create({ promptID, variables, stream: true }))),
    gives: hello,
    sent: templateSent('Greet', { stream: true, stream_options: { include_usage: true } }),
  },
  {
    name: 'completion of a version, with a parameter of its own',
    call: async (sdk) => (await sdk.prompts.completions.create({ promptID: `${promptID}@1`, variables, topP: 0.5, temperature: 1 })).choices[0].message.content,
    gives: hello,
    sent: templateSent('Say hello to', { stream: false, top_p: 0.5, temperature: 1 }),
  },
  {
    name: 'render',
    call: async (sdk) => {
      const { success, data } = await sdk.prompts.render({ promptID, variables });
      return [success, data.model, data.temperature, data.messages];
    },
    gives: [true, model, 0.25, rendered('Greet')],
    sent: null,
  },
  {
    name: 'a missing variable',
    call: (sdk) => failure(sdk.prompts.completions.create({ promptID })),
    gives: [400, true],
    sent: null,
  },
  {
    name: 'a locked parameter',
    call: (sdk) => failure(sdk.prompts.completions.create({ promptID, variables, max_tokens: 5 })),
    gives: [400, true],
    sent: null,
  },
];

// failure is the status of a call that fails, and whether its exception names what is
// at fault.
async function failure(call) {
  try {
    return await call;
  } catch (err) {
    return [err.status, /name|max_tokens/.test(err.message)];
  }
}

function client(door) {
  if (door.sdk === 'portkey') {
    return new Portkey({
      baseURL: door.base_url, apiKey: door.api_key, virtualKey: door.virtual_key,
      Authorization: door.authorization, calculateAudioDuration: false,
    });
  }
  return new OpenAI({ baseURL: door.base_url, apiKey: door.api_key, defaultHeaders: door.headers, maxRetries: 0, timeout: 60_000 });
}

// check makes the call of a case at a door, and says what is wrong, or nothing.
async function check(c, door, recording) {
  try {
    const given = await c.call(client(door), recording);
    if (c.form && door.json_only) {
      return `a form passed through Vault: ${JSON.stringify(given)}`;
    }
    assert.deepEqual(given, c.gives);
  } catch (err) {
    if (c.form && door.json_only && err.status === 400) {
      return '';
    }
    return String(err?.stack ?? err);
  }
  return '';
}

// through makes the calls of the table at a door, one after another.
async function through(door, recording) {
  const own = door.sdk === 'portkey' ? portkeyCases.filter((c) => !c.gatewayOnly || !door.json_only) : [];
  for (const c of door.prompt ? promptCases(door.prompt) : [...cases, ...own]) {
    const line = { door: door.name, case: c.name, wrong: await check(c, door, recording), sent: null };
    if (c.sent && !(c.form && door.json_only)) {
      const { method = 'POST', path, body, of } = c.sent;
      line.sent = { method, path, body: body && { ...body, ...of?.[door.sdk] } };
    }
    process.stdout.write(JSON.stringify(line) + '\n');
  }
}

const { doors, recording } = JSON.parse(await textOf(process.stdin));
await Promise.all(doors.map((door) => through(door, recording)));
