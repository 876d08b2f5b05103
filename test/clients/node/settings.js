// SPDX-License-Identifier: MPL-2.0

// The settings of the suite, all from the environment: see README.md.

function required(name) {
  const value = process.env[name];
  if (!value) {
    throw new Error(`set ${name}: see test/clients/node/README.md`);
  }
  return value;
}

const missingBaseURL = required('MISSING_BASE_URL');
const missingRole = /\/proxy\/([^/]+)\//.exec(missingBaseURL)?.[1];
if (!missingRole) {
  throw new Error(`MISSING_BASE_URL must contain /proxy/<role>/, not ${missingBaseURL}`);
}

export const settings = {
  baseURL: required('OPENAI_BASE_URL'),
  apiKey: required('OPENAI_API_KEY'),
  deniedBaseURL: required('DENIED_BASE_URL'),
  missingBaseURL,
  missingRole,
  model: process.env.MODEL || 'up-ok',
  // What the model says; only known of test/upstream's.
  answer: process.env.MODEL ? process.env.ANSWER : 'Hello from the upstream.',
  embeddingModel: process.env.EMBEDDING_MODEL || 'up-ok',
  deniedModel: process.env.DENIED_MODEL || 'up-403',
  errorModel: (status) => (process.env.ERROR_MODEL || 'up-{status}').replace('{status}', status),
};
