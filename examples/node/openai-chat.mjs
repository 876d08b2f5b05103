// SPDX-License-Identifier: MPL-2.0

// OpenAI's package: chat, whole and streamed, and embeddings.

// docs:begin openai-node
import OpenAI from 'openai';
// docs:end openai-node
import { embeddingModel, gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin openai-node
const openai = new OpenAI({
  apiKey: token,
  baseURL: gateway,
  defaultHeaders: { 'x-portkey-virtual-key': virtualKey },
});

const answer = await openai.chat.completions.create({
  model,
  messages: [{ role: 'user', content: 'Say hello.' }],
});
console.log(answer.choices[0].message.content);
// docs:end openai-node

// docs:begin openai-node-slug
// The same without a header: the virtual key before the model.
const other = new OpenAI({ apiKey: token, baseURL: gateway });
const stream = await other.chat.completions.create({
  model: `@${virtualKey}/${model}`,
  messages: [{ role: 'user', content: 'Say hello.' }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
}
// docs:end openai-node-slug
console.log();

const { data } = await openai.embeddings.create({ model: embeddingModel, input: 'hello' });
console.log(`a vector of ${data[0].embedding.length}`);
