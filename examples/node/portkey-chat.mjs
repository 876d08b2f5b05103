// SPDX-License-Identifier: MPL-2.0

// Portkey's own package: chat, whole and streamed.

// docs:begin portkey-node-chat
import { Portkey } from 'portkey-ai';
// docs:end portkey-node-chat
import { gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin portkey-node-chat
const portkey = new Portkey({ apiKey: token, virtualKey, baseURL: gateway });

const answer = await portkey.chat.completions.create({
  model,
  messages: [{ role: 'user', content: 'Say hello.' }],
});
console.log(answer.choices[0].message.content);
// docs:end portkey-node-chat
// What this request cost, in USD, if its model has a price.
console.log('cost:', answer.getHeaders().cost ?? 'unknown');

// docs:begin portkey-node-stream
const stream = await portkey.chat.completions.create({
  model,
  messages: [{ role: 'user', content: 'Say hello.' }],
  stream: true,
});
for await (const chunk of stream) {
  if (chunk.error) throw new Error(chunk.error.message); // the package takes it for a chunk
  process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
}
// docs:end portkey-node-stream
console.log();
