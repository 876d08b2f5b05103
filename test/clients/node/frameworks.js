// SPDX-License-Identifier: MPL-2.0

// What each package makes of refusals and failures, with the retries that it has
// by itself. It judges nothing: README.md says what goes in and comes out.

import { text as textOf } from 'node:stream/consumers';

// The virtual key of every request is in its headers: each task has one of its own,
// so that its attempts can be told from others'.
const attempts = [];
const realFetch = globalThis.fetch;
globalThis.fetch = async (url, init) => {
  const sent = performance.now();
  const headers = new Headers(init?.headers ?? (url instanceof Request ? url.headers : undefined));
  const answer = await realFetch(url, init);
  attempts.push({
    key: headers.get('x-portkey-virtual-key'), status: answer.status,
    sent, ended: performance.now(), retry_after: answer.headers.get('retry-after') ?? '',
  });
  return answer;
};

const { base_url: baseURL, api_key: apiKey, tasks } = JSON.parse(await textOf(process.stdin));
const prompt = 'Say hello.';
const messages = [{ role: 'user', content: prompt }];
const headersOf = (task) => ({ 'x-portkey-virtual-key': task.virtual_key });

const { default: OpenAI } = await import('openai');
const { Portkey } = await import('portkey-ai');
const { ChatOpenAI } = await import('@langchain/openai');
const { OpenAI: LlamaOpenAI } = await import('@llamaindex/openai');
const { createOpenAICompatible } = await import('@ai-sdk/openai-compatible');
const { generateText, streamText } = await import('ai');
const { Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, run, setTracingDisabled } = await import('@openai/agents');

setTracingDisabled(true);

// Each package makes a chat, and a stream whose pieces of text it hands to say.
const openai = (task) => new OpenAI({ apiKey, baseURL, defaultHeaders: headersOf(task) });
const portkey = (task) => new Portkey({ apiKey, baseURL, virtualKey: task.virtual_key });
const langchain = (task) => new ChatOpenAI({ model: task.model, apiKey, configuration: { baseURL, defaultHeaders: headersOf(task) } });
const llamaindex = (task) => new LlamaOpenAI({ model: task.model, apiKey, baseURL, additionalSessionOptions: { defaultHeaders: headersOf(task) } });
const vercel = (task) => createOpenAICompatible({ name: 'portkey', apiKey, baseURL, headers: headersOf(task) })(task.model);
const agent = (Model) => (task) => new Agent({ name: 'Greeter', model: new Model(openai(task), task.model) });

async function chunks(stream, say) {
  for await (const chunk of await stream) {
    say(chunk.choices[0]?.delta?.content);
  }
}

function agents(Model) {
  return {
    chat: async (task) => (await run(agent(Model)(task), prompt)).finalOutput,
    stream: async (task, say) => {
      const stream = await run(agent(Model)(task), prompt, { stream: true });
      for await (const text of stream.toTextStream()) {
        say(text);
      }
      await stream.completed;
    },
  };
}

const sdks = {
  openai: {
    chat: async (task) => (await openai(task).chat.completions.create({ model: task.model, messages })).choices[0].message.content,
    stream: (task, say) => chunks(openai(task).chat.completions.create({ model: task.model, messages, stream: true }), say),
  },
  portkey: {
    chat: async (task) => (await portkey(task).chat.completions.create({ model: task.model, messages })).choices[0].message.content,
    stream: (task, say) => chunks(portkey(task).chat.completions.create({ model: task.model, messages, stream: true }), say),
  },
  langchain: {
    chat: async (task) => (await langchain(task).invoke(prompt)).content,
    stream: async (task, say) => {
      for await (const chunk of await langchain(task).stream(prompt)) {
        say(chunk.content);
      }
    },
  },
  llamaindex: {
    chat: async (task) => (await llamaindex(task).chat({ messages })).message.content,
    stream: async (task, say) => {
      for await (const chunk of await llamaindex(task).chat({ messages, stream: true })) {
        say(chunk.delta);
      }
    },
  },
  agents: agents(OpenAIChatCompletionsModel),
  'agents-responses': agents(OpenAIResponsesModel),
  vercel: {
    chat: async (task) => (await generateText({ model: vercel(task), prompt })).text,
    // As examples/node/vercel-ai.mjs does.
    stream: async (task, say) => {
      const stream = streamText({ model: vercel(task), prompt, onError() {} });
      for await (const part of stream.fullStream) {
        if (part.type === 'error') {
          throw part.error;
        }
        say(part.type === 'text-delta' ? part.text : '');
      }
    },
  },
};

// told is what a developer sees of an exception.
function told(err) {
  const status = err.status ?? err.statusCode ?? err.lastError?.statusCode ?? 0;
  return { class: err?.constructor?.name ?? typeof err, status, message: String(err?.message ?? err), code: err.code ?? '' };
}

await Promise.all(tasks.map(async (task) => {
  const end = { ...task, text: '', pieces: 0 };
  try {
    const text = await sdks[task.sdk][task.do](task, (piece) => {
      if (piece) {
        end.text += piece;
        end.pieces++;
      }
    });
    end.text ||= text ?? '';
  } catch (err) {
    end.error = told(err);
  }
  end.attempts = attempts.filter((a) => a.key === task.virtual_key);
  process.stdout.write(JSON.stringify(end) + '\n');
}));
