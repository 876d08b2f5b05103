// SPDX-License-Identifier: MPL-2.0

// A prompt template of Vault's, whose model and virtual key the template chooses:
//
//     vault write portkey/prompts/greeting virtual_key=team-a model=gpt-4o-mini \
//       messages='[{"role":"user","content":"Say hello to {{name}}."}]'

import { Portkey } from 'portkey-ai';
import { gateway, prompt, token } from './settings.mjs';

// docs:begin portkey-node-prompts
const portkey = new Portkey({ apiKey: token, baseURL: gateway });
const variables = { name: 'Ada' };

const answer = await portkey.prompts.completions.create({ promptID: prompt, variables });
console.log(answer.choices[0].message.content);
// docs:end portkey-node-prompts

// docs:begin portkey-node-prompts-stream
const stream = await portkey.prompts.completions.create({ promptID: prompt, variables, stream: true });
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
}
// docs:end portkey-node-prompts-stream
console.log();

// docs:begin portkey-node-prompts-render
// The same without the call: what would be sent.
const rendered = await portkey.prompts.render({ promptID: prompt, variables });
console.log(rendered.data.messages[0].content);
// docs:end portkey-node-prompts-render
