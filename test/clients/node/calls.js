// SPDX-License-Identifier: MPL-2.0

// Makes calls with the official packages, unmodified, and tells what each of
// them made of the answers. It judges nothing: README.md says what goes in and
// comes out.

import { createReadStream } from 'node:fs';
import { text as textOf } from 'node:stream/consumers';
import OpenAI from 'openai';
import { Portkey } from 'portkey-ai';

function client(call) {
  if (call.sdk === 'portkey') {
    return new Portkey({
      baseURL: call.base_url, apiKey: call.api_key, virtualKey: call.virtual_key,
      Authorization: call.authorization,
    });
  }
  return new OpenAI({
    baseURL: call.base_url, apiKey: call.api_key, defaultHeaders: call.headers,
    maxRetries: 0, timeout: 60_000,
  });
}

// stream notes when each piece of text arrives, in milliseconds since the call.
async function stream(sdk, call, said) {
  const began = performance.now();
  const answer = await sdk.chat.completions.create({ ...call.params, stream: true });
  for await (const chunk of answer) {
    const piece = chunk.choices?.[0]?.delta?.content;
    if (piece) {
      said.text += piece;
      said.arrivals.push(performance.now() - began);
    }
    if (call.stop_after && said.arrivals.length === call.stop_after) {
      answer.controller?.abort(); // portkey-ai has none: leaving the loop does it
      break;
    }
  }
}

// opened is params with the files that call.files names, in the order of params.
function opened(call) {
  const open = (path) => createReadStream(path, { highWaterMark: 1 << 20 });
  return Object.fromEntries(Object.entries(call.params).map(([name, value]) => {
    const file = call.files?.[name];
    return [name, file ? (Array.isArray(file) ? file.map(open) : open(file)) : value];
  }));
}

async function run(call) {
  const said = { name: call.name, text: '', arrivals: [] };
  try {
    const sdk = client(call);
    switch (call.do) {
      case 'stream':
        await stream(sdk, call, said);
        break;
      case 'chat':
        said.text = (await sdk.chat.completions.create(call.params)).choices[0].message.content;
        break;
      case 'transcribe':
        said.text = (await sdk.audio.transcriptions.create(opened(call))).text;
        break;
      case 'edit':
        said.text = (await sdk.images.edit(opened(call))).data[0].b64_json;
        break;
      case 'speech': {
        const answer = await sdk.audio.speech.create(call.params);
        said.text = Buffer.from(await answer.arrayBuffer()).toString('base64');
        break;
      }
      default:
        throw new Error(`do what? ${call.do}`);
    }
  } catch (err) {
    said.error = {
      class: err.constructor.name, status: err.status ?? 0, code: err.code ?? err.error?.error?.code ?? '',
      message: err.message ?? String(err),
    };
  }
  return said;
}

const calls = JSON.parse(await textOf(process.stdin));
const ends = await Promise.all(calls.map(run));
process.stdout.write(JSON.stringify(ends) + '\n');
