// SPDX-License-Identifier: MPL-2.0

// LlamaIndex: chat, stream, tools and embeddings.

// docs:begin llamaindex-node
import { OpenAI, OpenAIEmbedding } from '@llamaindex/openai';
// docs:end llamaindex-node
import { tool } from '@llamaindex/core/tools';
import { z } from 'zod';
import { embeddingModel, gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin llamaindex-node
const options = {
  apiKey: token,
  baseURL: gateway,
  additionalSessionOptions: { defaultHeaders: { 'x-portkey-virtual-key': virtualKey } },
};
const llm = new OpenAI({ model, ...options });

const messages = [{ role: 'user', content: 'Say hello.' }];
const answer = await llm.chat({ messages });
console.log(answer.message.content);

for await (const chunk of await llm.chat({ messages, stream: true })) {
  process.stdout.write(chunk.delta);
}
// docs:end llamaindex-node
console.log();

// docs:begin llamaindex-node-tools
const weather = tool({
  name: 'weather',
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => `It rains in ${city}.`,
});
const question = [{ role: 'user', content: 'What is the weather in Paris?' }];
const asked = await llm.chat({ messages: question, tools: [weather] });
for (const call of asked.message.options?.toolCall ?? []) {
  console.log(await weather.call(JSON.parse(call.input)));
}
// docs:end llamaindex-node-tools

// docs:begin llamaindex-node-embeddings
const embedder = new OpenAIEmbedding({ model: embeddingModel, ...options });
const vector = await embedder.getTextEmbedding('hello');
// docs:end llamaindex-node-embeddings
console.log(`a vector of ${vector.length}`);
