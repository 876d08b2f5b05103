# SPDX-License-Identifier: MPL-2.0
"""LlamaIndex: chat, stream, tools, async and embeddings."""

import asyncio

# docs:begin llamaindex-python
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

# docs:end llamaindex-python
from llama_index.core.tools import FunctionTool
from settings import EMBEDDING_MODEL, GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin llamaindex-python
# OpenAILike, for the class OpenAI refuses names of models that it doesn't know.
options = {"api_key": TOKEN, "api_base": GATEWAY, "default_headers": {"x-portkey-virtual-key": VIRTUAL_KEY}}
llm = OpenAILike(model=MODEL, is_chat_model=True, is_function_calling_model=True, **options)

question = [ChatMessage(role="user", content="Say hello.")]
print(llm.chat(question).message.content)

for chunk in llm.stream_chat(question):
    print(chunk.delta, end="", flush=True)
print()
# docs:end llamaindex-python


# docs:begin llamaindex-python-tools
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


tools = [FunctionTool.from_defaults(weather)]
print(llm.predict_and_call(tools, "What is the weather in Paris?").response)
# docs:end llamaindex-python-tools


# docs:begin llamaindex-python-async
async def several() -> None:
    for answer in await asyncio.gather(llm.achat(question), llm.acomplete("Say it again.")):
        print(getattr(answer, "text", None) or answer.message.content)
    async for chunk in await llm.astream_chat(question):
        print(chunk.delta, end="", flush=True)
    print()


asyncio.run(several())
# docs:end llamaindex-python-async

# docs:begin llamaindex-python-embeddings
embeddings = OpenAILikeEmbedding(model_name=EMBEDDING_MODEL, **options)
print("a vector of", len(embeddings.get_text_embedding("hello")))
# docs:end llamaindex-python-embeddings
