# SPDX-License-Identifier: MPL-2.0
"""PortkeyLLM(api_key=…, virtual_key=…) for LangChain of today: the class of that
name in portkey-ai needs a release that is long gone. It is a ChatOpenAI, so tools,
streams, async and structured output work as they do there.
"""

# docs:begin portkey-llm-langchain-python
from langchain_openai import ChatOpenAI

# docs:end portkey-llm-langchain-python
from settings import GATEWAY, MODEL, TOKEN, VIRTUAL_KEY


# docs:begin portkey-llm-langchain-python
class PortkeyLLM(ChatOpenAI):
    """A chat model on a virtual key; all else is ChatOpenAI's."""

    def __init__(self, *, api_key: str, virtual_key: str, base_url: str = GATEWAY, model: str = MODEL, **options):
        headers = {**options.pop("default_headers", {}), "x-portkey-virtual-key": virtual_key}
        super().__init__(api_key=api_key, base_url=base_url, model=model, default_headers=headers, **options)


llm = PortkeyLLM(api_key=TOKEN, virtual_key=VIRTUAL_KEY)
print(llm.invoke("Say hello.").content)
# docs:end portkey-llm-langchain-python

for chunk in llm.stream("Say hello."):
    print(chunk.content, end="", flush=True)
print()
