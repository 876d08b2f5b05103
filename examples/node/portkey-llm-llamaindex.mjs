// SPDX-License-Identifier: MPL-2.0

// The documented one-liner, `new PortkeyLLM({ apiKey, virtualKey })`, on today's
// LlamaIndex: copy the class.

// docs:begin portkey-llm-llamaindex-node
import { OpenAI } from '@llamaindex/openai';

// PortkeyLLM is an LLM on a virtual key. Its baseURL is PORTKEY_GATEWAY's unless one
// is given; all other fields are those of @llamaindex/openai's OpenAI.
export class PortkeyLLM extends OpenAI {
  constructor({ virtualKey, baseURL = process.env.PORTKEY_GATEWAY, additionalSessionOptions, ...fields }) {
    super({
      ...fields,
      baseURL,
      additionalSessionOptions: {
        ...additionalSessionOptions,
        defaultHeaders: { ...additionalSessionOptions?.defaultHeaders, 'x-portkey-virtual-key': virtualKey },
      },
    });
  }
}
// docs:end portkey-llm-llamaindex-node

// Run as a program, it says hello.
if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { model, token, virtualKey } = await import('./settings.mjs');
  const llm = new PortkeyLLM({ apiKey: token, virtualKey, model });
  const messages = [{ role: 'user', content: 'Say hello.' }];
  console.log((await llm.chat({ messages })).message.content);
  for await (const chunk of await llm.chat({ messages, stream: true })) {
    process.stdout.write(chunk.delta);
  }
  console.log();
}
