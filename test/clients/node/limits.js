// SPDX-License-Identifier: MPL-2.0

// What the official openai package makes of the limits of virtual keys. Run by
// name (`node --test limits.js`), with what README.md says of it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`set ${name}: see test/clients/node/README.md`);
  }
  return value;
}

// client has the SDK's own retries, unless told otherwise, and notes each attempt.
function client(baseURL, options = {}) {
  const attempts = [];
  const openai = new OpenAI({
    baseURL, apiKey: required('OPENAI_API_KEY'), timeout: 60_000, ...options,
    fetch: async (url, init) => {
      const sent = Date.now();
      const answer = await fetch(url, init);
      attempts.push({ sent, ended: Date.now(), status: answer.status, retryAfter: answer.headers.get('retry-after') });
      return answer;
    },
  });
  const chat = (model, extra = {}) => openai.chat.completions.create({
    model, max_tokens: 100, messages: [{ role: 'user', content: 'Say hello.' }], ...extra,
  });
  return { chat, attempts };
}

async function failure(call) {
  try {
    await call;
  } catch (err) {
    return err;
  }
  return assert.fail('the call succeeded');
}

for (const stream of [false, true]) {
  test(`a budget that is used up is an APIError, told once${stream ? ', streamed' : ''}`, async () => {
    const { chat, attempts } = client(required('SPENT_BASE_URL'));
    const err = await failure(chat('up-ok', { stream }));
    assert.ok(err instanceof OpenAI.APIError, String(err));
    assert.equal(err.status, 402);
    assert.equal(err.code, 'budget_exceeded');
    assert.equal(err.type, 'insufficient_quota');
    assert.match(err.message, /^402 the limit .* is used up: .*; it resets at \d{4}-/);
    assert.equal(attempts.length, 1);
  });
}

test('a request larger than the whole limit is PermissionDeniedError, told once', async () => {
  const { chat, attempts } = client(required('SMALL_BASE_URL'));
  const err = await failure(chat('up-ok', { max_tokens: 5000 }));
  assert.ok(err instanceof OpenAI.PermissionDeniedError, String(err));
  assert.equal(err.code, 'request_exceeds_limit');
  assert.match(err.message, /^403 the request may need up to .* make it smaller/);
  assert.equal(attempts.length, 1);
});

test('too many at once are tried again after retry-after, and succeed', async () => {
  const { chat, attempts } = client(required('BUSY_BASE_URL'), { maxRetries: 20 });
  const answers = await Promise.all([1, 2, 3].map(() => chat('up-slow:1500')));
  for (const answer of answers) {
    assert.equal(answer.choices[0].message.content, 'Hello from the upstream.');
  }
  const refused = attempts.filter((a) => a.status === 429);
  assert.ok(refused.length > 0, 'nothing was refused, so nothing was tried again');
  assert.equal(attempts.length, refused.length + 3);
  for (const a of refused) {
    assert.match(a.retryAfter, /^[1-9]\d*$/);
    // Nothing is sent for the same call until then; of three calls, no more
    // than the two others can be.
    const soon = attempts.filter((b) => b.sent > a.ended && b.sent < a.ended + 1000 * Number(a.retryAfter) - 20);
    assert.ok(soon.length <= 2, JSON.stringify(attempts));
  }
});

test('without retries the same is RateLimitError, which says what is in the way', async () => {
  const { chat } = client(required('BUSY_BASE_URL'), { maxRetries: 0 });
  const ends = await Promise.allSettled([1, 2, 3].map(() => chat('up-slow:1500')));
  const refused = ends.filter((e) => e.status === 'rejected');
  assert.ok(refused.length > 0);
  for (const { reason: err } of refused) {
    assert.ok(err instanceof OpenAI.RateLimitError, String(err));
    assert.equal(err.code, 'rate_limit_exceeded');
    assert.match(err.message, /^429 1 requests? .* under way on the limit concurrent=1 of virtual key "busy-/);
  }
});
