# SPDX-License-Identifier: MPL-2.0
"""LiteLLM as a client: chat, stream, async and embeddings."""

import asyncio

# docs:begin litellm-python
import os

# Or the package fetches its table of prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

# docs:end litellm-python
from settings import EMBEDDING_MODEL, GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin litellm-python
# openai/ says which API the gateway has; the provider's model follows.
options = {"api_key": TOKEN, "api_base": GATEWAY, "extra_headers": {"x-portkey-virtual-key": VIRTUAL_KEY}}

question = [{"role": "user", "content": "Say hello."}]
answer = litellm.completion(model=f"openai/{MODEL}", messages=question, **options)
print(answer.choices[0].message.content)

for chunk in litellm.completion(model=f"openai/{MODEL}", messages=question, stream=True, **options):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
# docs:end litellm-python


# docs:begin litellm-python-async
async def main() -> None:
    answer = await litellm.acompletion(model=f"openai/{MODEL}", messages=question, **options)
    print(answer.choices[0].message.content)


asyncio.run(main())
# docs:end litellm-python-async

# docs:begin litellm-python-embeddings
vector = litellm.embedding(model=f"openai/{EMBEDDING_MODEL}", input="hello", **options).data[0]["embedding"]
print("a vector of", len(vector))
# docs:end litellm-python-embeddings
