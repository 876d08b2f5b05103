// SPDX-License-Identifier: MPL-2.0

// Portkey's own package at Vault's own address, without or with the gateway's
// redirects. Files (audio, images to edit) go through the gateway's address alone.

// docs:begin portkey-node-vault
import { Portkey } from 'portkey-ai';
// docs:end portkey-node-vault
import { model, token, virtualKey } from './settings.mjs';

const vault = process.env.VAULT_ADDR || 'http://127.0.0.1:8200';

// docs:begin portkey-node-vault
const portkey = new Portkey({
  apiKey: token,
  Authorization: `Bearer ${token}`, // which Vault reads; the package sends none by itself
  baseURL: `${vault}/v1/portkey/proxy/${virtualKey}/v1`,
});
// docs:end portkey-node-vault

const question = { model, messages: [{ role: 'user', content: 'Say hello.' }] };
const answer = await portkey.chat.completions.create(question);
console.log(answer.choices[0].message.content);

const stream = await portkey.chat.completions.create({ ...question, stream: true });
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? '');
}
console.log();
