# SPDX-License-Identifier: MPL-2.0
"""LangChain: chat, stream, tools, async and embeddings."""

import asyncio

# docs:begin langchain-python
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

# docs:end langchain-python
from langchain_core.tools import tool
from settings import EMBEDDING_MODEL, GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin langchain-python
options = {"api_key": TOKEN, "base_url": GATEWAY, "default_headers": {"x-portkey-virtual-key": VIRTUAL_KEY}}
llm = ChatOpenAI(model=MODEL, **options)

print(llm.invoke("Say hello.").content)

for chunk in llm.stream("Say hello."):
    print(chunk.content, end="", flush=True)
print()
# docs:end langchain-python


# docs:begin langchain-python-tools
@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


for call in llm.bind_tools([weather]).invoke("What is the weather in Paris?").tool_calls:
    print(weather.invoke(call).content)
# docs:end langchain-python-tools


# docs:begin langchain-python-async
async def several() -> None:
    for answer in await llm.abatch(["Say hello.", "Say it again."]):
        print(answer.content)
    async for chunk in llm.astream("Say hello."):
        print(chunk.content, end="", flush=True)
    print()


asyncio.run(several())
# docs:end langchain-python-async

# docs:begin langchain-python-embeddings
# Texts are sent as they are: else the package fetches a tokenizer, and sends numbers.
embeddings = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False, **options)
print("a vector of", len(embeddings.embed_query("hello")))
# docs:end langchain-python-embeddings
