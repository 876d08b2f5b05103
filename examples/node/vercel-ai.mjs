// SPDX-License-Identifier: MPL-2.0

// The Vercel AI SDK: text, a stream, a tool and embeddings.

// docs:begin vercel-ai
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embed, generateText, stepCountIs, streamText, tool } from 'ai';
// docs:end vercel-ai
import { z } from 'zod';
import { embeddingModel, gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin vercel-ai
const portkey = createOpenAICompatible({
  name: 'portkey',
  apiKey: token,
  baseURL: gateway,
  headers: { 'x-portkey-virtual-key': virtualKey },
});

const { text } = await generateText({ model: portkey(model), prompt: 'Say hello.' });
console.log(text);

// textStream would end quietly at an error: fullStream tells of it.
const stream = streamText({ model: portkey(model), prompt: 'Say hello.' });
for await (const part of stream.fullStream) {
  if (part.type === 'error') throw part.error;
  if (part.type === 'text-delta') process.stdout.write(part.text);
}
// docs:end vercel-ai
console.log();

// docs:begin vercel-ai-tools
const forecast = await generateText({
  model: portkey(model),
  prompt: 'What is the weather in Paris?',
  tools: {
    weather: tool({
      description: 'The weather of a city.',
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `It rains in ${city}.`,
    }),
  },
  stopWhen: stepCountIs(3),
});
console.log(forecast.text);
// docs:end vercel-ai-tools

const { embedding } = await embed({ model: portkey.embeddingModel(embeddingModel), value: 'hello' });
console.log(`a vector of ${embedding.length}`);
