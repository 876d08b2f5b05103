// SPDX-License-Identifier: MPL-2.0

// Many calls on many virtual keys at once with portkey-ai, in the ways that it has
// to name one for a call. Each call says in its text which virtual key it is meant
// for, so that the provider can tell. README.md says how it is run.

import { text as textOf } from 'node:stream/consumers';
import { Portkey } from 'portkey-ai';

const { base_url: baseURL, api_key: apiKey, keys, count, way } = JSON.parse(await textOf(process.stdin));
const failed = [];

// What is called, in turn. Answers are of different lengths and take different times.
const kinds = [
  (sdk, content, params) => sdk.chat.completions.create({ model: 'up-random:1:40:30', messages: [{ role: 'user', content }] }, params),
  async (sdk, content, params) => {
    const stream = await sdk.chat.completions.create({ model: 'up-random:1:40:30', messages: [{ role: 'user', content }], stream: true }, params);
    for await (const chunk of stream) {
      if (!chunk.choices) {
        throw new Error(`no chunk: ${JSON.stringify(chunk)}`);
      }
    }
  },
  (sdk, content, params) => sdk.completions.create({ model: 'up-random:1:40:30', prompt: content }, params),
  (sdk, content, params) => sdk.embeddings.create({ model: 'up-random:1:40:30', input: content, dimensions: 8 }, params),
  (sdk, content, params) => sdk.responses.create({ model: 'up-random:1:40:30', input: content }, params),
];

async function call(sdk, key, i, params) {
  try {
    await kinds[i % kinds.length](sdk, `for ${key}: ${'x'.repeat((i * 37) % 200)}`, params);
  } catch (err) {
    failed.push({ key, status: err.status ?? 0, message: String(err) });
  }
}

// Every virtual key has every kind of call, and neighbours differ in both.
const keyOf = (i) => keys[(i * 7 + Math.floor(i / keys.length)) % keys.length];

const ways = {
  // A client for each virtual key.
  async client() {
    const clients = Object.fromEntries(keys.map((virtualKey) => [virtualKey, new Portkey({ apiKey, baseURL, virtualKey })]));
    await Promise.all(Array.from({ length: count }, (_, i) => call(clients[keyOf(i)], keyOf(i), i)));
  },
  // One client, each of whose calls names its virtual key.
  async named() {
    const sdk = new Portkey({ apiKey, baseURL, virtualKey: keys[0] });
    await Promise.all(Array.from({ length: count }, (_, i) => call(sdk, keyOf(i), i, { virtualKey: keyOf(i) })));
  },
  // One client, of whose calls few name one: the others go where the last that did
  // went, which is how the package is. keys are its own, another, and one that the
  // token may not use.
  async changed() {
    const [own, other, denied] = keys;
    const sdk = new Portkey({ apiKey, baseURL, virtualKey: own });
    await call(sdk, own, 0);
    await call(sdk, other, 0, { virtualKey: other });
    await call(sdk, other, 0);
    await call(sdk, other, 1);
    await call(sdk, denied, 0, { virtualKey: denied });
    await call(sdk, denied, 0);
    await call(sdk, own, 0, { virtualKey: own });
  },
};

await ways[way]();
process.stdout.write(JSON.stringify({ failed }) + '\n');
