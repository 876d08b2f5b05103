// SPDX-License-Identifier: MPL-2.0

// Another virtual key for one call. portkey-ai takes it as the second argument, and
// then keeps it: every later call of that client that names none goes there too.

import { Portkey } from 'portkey-ai';
import { gateway, model, otherVirtualKey, token, virtualKey } from './settings.mjs';

const question = { model, messages: [{ role: 'user', content: 'Say hello.' }] };
const said = (answer) => answer.choices[0].message.content;

// docs:begin portkey-node-client-per-key
// One client for each virtual key, which no call changes.
const clients = new Map();
function portkeyOf(virtualKey) {
  if (!clients.has(virtualKey)) {
    clients.set(virtualKey, new Portkey({ apiKey: token, baseURL: gateway, virtualKey }));
  }
  return clients.get(virtualKey);
}
// docs:end portkey-node-client-per-key
console.log(virtualKey, said(await portkeyOf(virtualKey).chat.completions.create(question)));
console.log(otherVirtualKey, said(await portkeyOf(otherVirtualKey).chat.completions.create(question)));

// docs:begin portkey-node-per-call
// Or one client, of which every call names its virtual key.
const portkey = new Portkey({ apiKey: token, baseURL: gateway });
const answers = await Promise.all([
  portkey.chat.completions.create(question, { virtualKey }),
  portkey.chat.completions.create(question, { virtualKey: otherVirtualKey }),
]);
// docs:end portkey-node-per-call
console.log(answers.map(said).join(' '));

// What to avoid: this client was made for virtualKey, and after the first call is
// for otherVirtualKey.
const surprising = new Portkey({ apiKey: token, baseURL: gateway, virtualKey });
await surprising.chat.completions.create(question, { virtualKey: otherVirtualKey });
await surprising.chat.completions.create(question);
console.log('it is now on', surprising.customHeaders['x-portkey-virtual-key']);
