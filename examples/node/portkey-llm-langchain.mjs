// SPDX-License-Identifier: MPL-2.0

// The documented one-liner, `new PortkeyLLM({ apiKey, virtualKey })`, on today's
// LangChain: copy the class.

// docs:begin portkey-llm-langchain-node
import { ChatOpenAI } from '@langchain/openai';

// PortkeyLLM is a chat model on a virtual key. Its baseURL is PORTKEY_GATEWAY's
// unless one is given; all other fields are ChatOpenAI's.
export class PortkeyLLM extends ChatOpenAI {
  constructor({ apiKey, virtualKey, baseURL = process.env.PORTKEY_GATEWAY, configuration, ...fields }) {
    super({
      ...fields,
      apiKey,
      configuration: {
        ...configuration,
        baseURL,
        defaultHeaders: { ...configuration?.defaultHeaders, 'x-portkey-virtual-key': virtualKey },
      },
    });
  }
}
// docs:end portkey-llm-langchain-node

// Run as a program, it says hello.
if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { model, token, virtualKey } = await import('./settings.mjs');
  const llm = new PortkeyLLM({ apiKey: token, virtualKey, model });
  console.log((await llm.invoke('Say hello.')).content);
  for await (const chunk of await llm.stream('Say hello.')) {
    process.stdout.write(chunk.content);
  }
  console.log();
}
