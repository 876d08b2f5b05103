# SPDX-License-Identifier: MPL-2.0
"""PortkeyLLM(api_key=…, virtual_key=…) for LlamaIndex of today: the class of that
name in portkey-ai needs a release that is long gone. It is an OpenAILike, so tools,
streams and async work as they do there.
"""

# docs:begin portkey-llm-llamaindex-python
from llama_index.llms.openai_like import OpenAILike

# docs:end portkey-llm-llamaindex-python
from settings import GATEWAY, MODEL, TOKEN, VIRTUAL_KEY


# docs:begin portkey-llm-llamaindex-python
class PortkeyLLM(OpenAILike):
    """A chat model on a virtual key; all else is OpenAILike's."""

    def __init__(self, *, api_key: str, virtual_key: str, base_url: str = GATEWAY, model: str = MODEL, **options):
        headers = {**options.pop("default_headers", {}), "x-portkey-virtual-key": virtual_key}
        chat = {"is_chat_model": True, "is_function_calling_model": True}
        super().__init__(model=model, api_base=base_url, api_key=api_key, default_headers=headers, **{**chat, **options})


llm = PortkeyLLM(api_key=TOKEN, virtual_key=VIRTUAL_KEY)
print(llm.complete("Say hello.").text)
# docs:end portkey-llm-llamaindex-python

for chunk in llm.stream_complete("Say hello."):
    print(chunk.delta, end="", flush=True)
print()
