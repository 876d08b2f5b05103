// SPDX-License-Identifier: MPL-2.0

// The OpenAI Agents SDK: an agent with a tool, and a streamed answer.

// docs:begin openai-agents-node
import { Agent, OpenAIChatCompletionsModel, run, setTracingDisabled, tool } from '@openai/agents';
import OpenAI from 'openai';
// docs:end openai-agents-node
import { z } from 'zod';
import { gateway, model, token, virtualKey } from './settings.mjs';

// docs:begin openai-agents-node
// Traces hold prompts and answers, and would go to OpenAI itself, past Vault.
setTracingDisabled(true);

const openai = new OpenAI({
  apiKey: token,
  baseURL: gateway,
  defaultHeaders: { 'x-portkey-virtual-key': virtualKey },
});
const llm = new OpenAIChatCompletionsModel(openai, model);

const greeter = new Agent({ name: 'Greeter', instructions: 'Be brief.', model: llm });
const answer = await run(greeter, 'Say hello.');
console.log(answer.finalOutput);
// docs:end openai-agents-node

const stream = await run(greeter, 'Say hello.', { stream: true });
for await (const text of stream.toTextStream()) {
  process.stdout.write(text);
}
await stream.completed;
console.log();

// docs:begin openai-agents-node-tools
const weather = tool({
  name: 'weather',
  description: 'The weather of a city.',
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => `It rains in ${city}.`,
});
const forecaster = new Agent({ name: 'Forecaster', model: llm, tools: [weather] });
console.log((await run(forecaster, 'What is the weather in Paris?')).finalOutput);
// docs:end openai-agents-node-tools
