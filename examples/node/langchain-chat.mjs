// SPDX-License-Identifier: MPL-2.0

// LangChain: chat, stream, tools and embeddings.

// docs:begin langchain-node
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
// docs:end langchain-node
import { tool } from '@langchain/core/tools';
import { z } from 'zod';
import { embeddingModel, gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin langchain-node
const configuration = { baseURL: gateway, defaultHeaders: { 'x-portkey-virtual-key': virtualKey } };
const llm = new ChatOpenAI({ model, apiKey: token, configuration });

const answer = await llm.invoke('Say hello.');
console.log(answer.content);

for await (const chunk of await llm.stream('Say hello.')) {
  process.stdout.write(chunk.content);
}
// docs:end langchain-node
console.log();

// docs:begin langchain-node-tools
const weather = tool(({ city }) => `It rains in ${city}.`, {
  name: 'weather',
  description: 'The weather of a city.',
  schema: z.object({ city: z.string() }),
});
const asked = await llm.bindTools([weather]).invoke('What is the weather in Paris?');
for (const call of asked.tool_calls) {
  console.log((await weather.invoke(call)).content);
}
// docs:end langchain-node-tools

// docs:begin langchain-node-embeddings
const embeddings = new OpenAIEmbeddings({ model: embeddingModel, apiKey: token, configuration });
const vector = await embeddings.embedQuery('hello');
// docs:end langchain-node-embeddings
console.log(`a vector of ${vector.length}`);
