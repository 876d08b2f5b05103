// SPDX-License-Identifier: MPL-2.0

// The settings of the examples, all from the environment.

function required(name, example) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`set ${name}, for example ${name}=${example}`);
  }
  return value;
}

// A Vault token that may use the virtual keys, or a leased key (vk-…).
export const token = required('VAULT_TOKEN', '$(vault print token)');

// The gateway's address with /v1 at its end.
export const gateway = required('PORTKEY_GATEWAY', 'http://127.0.0.1:8300/v1');

// The virtual keys, roles in Vault. The second is used by portkey-per-call.mjs alone.
export const virtualKey = process.env.VIRTUAL_KEY || 'team-a';
export const otherVirtualKey = process.env.OTHER_VIRTUAL_KEY || 'team-b';

// What the virtual keys' provider has.
export const model = process.env.MODEL || 'gpt-4o-mini';
export const embeddingModel = process.env.EMBEDDING_MODEL || 'text-embedding-3-small';

// The prompt template of portkey-prompts.mjs.
export const prompt = process.env.PROMPT || 'greeting';
