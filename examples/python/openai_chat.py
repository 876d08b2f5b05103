# SPDX-License-Identifier: MPL-2.0
"""OpenAI's SDK: chat, streamed chat and embeddings."""

# docs:begin openai-python
from openai import OpenAI

# docs:end openai-python
from settings import EMBEDDING_MODEL, GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin openai-python
client = OpenAI(api_key=TOKEN, base_url=GATEWAY, default_headers={"x-portkey-virtual-key": VIRTUAL_KEY})

question = [{"role": "user", "content": "Say hello."}]
answer = client.chat.completions.create(model=MODEL, messages=question)
print(answer.choices[0].message.content)

for chunk in client.chat.completions.create(model=MODEL, messages=question, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
# docs:end openai-python

vector = client.embeddings.create(model=EMBEDDING_MODEL, input="hello").data[0].embedding
print("a vector of", len(vector))

# docs:begin openai-python-slug
# The virtual key may stand before the model instead, for one call or for all.
plain = OpenAI(api_key=TOKEN, base_url=GATEWAY)
answer = plain.chat.completions.create(model=f"@{VIRTUAL_KEY}/{MODEL}", messages=question)
# docs:end openai-python-slug
print(answer.choices[0].message.content)
