# SPDX-License-Identifier: MPL-2.0
"""What each package makes of refusals and failures, with the retries that it has by
itself. It judges nothing: README.md says what goes in and comes out.
"""

import asyncio
import contextlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or importing it asks the network
PROMPT = "Say hello."
MESSAGES = [{"role": "user", "content": PROMPT}]

# A package is a function of the settings, the task, and what is told each piece of
# a stream's text. What it raises is what the caller of the package gets.
Say = Callable[[str | None], None]


def headers(task: dict) -> dict:
    return {"x-portkey-virtual-key": task["virtual_key"]}


def chat_with(client, task: dict, say: Say) -> str | None:
    """A chat in the manner of openai."""
    if task["do"] == "chat":
        return client.chat.completions.create(model=task["model"], messages=MESSAGES).choices[0].message.content
    for chunk in client.chat.completions.create(model=task["model"], messages=MESSAGES, stream=True):
        if chunk.choices:
            say(chunk.choices[0].delta.content)


async def chat_with_async(client, task: dict, say: Say) -> str | None:
    if task["do"] == "chat":
        return (await client.chat.completions.create(model=task["model"], messages=MESSAGES)).choices[0].message.content
    async for chunk in await client.chat.completions.create(model=task["model"], messages=MESSAGES, stream=True):
        if chunk.choices:
            say(chunk.choices[0].delta.content)


def openai(base_url: str, api_key: str, task: dict, say: Say):
    from openai import OpenAI

    return chat_with(OpenAI(base_url=base_url, api_key=api_key, default_headers=headers(task)), task, say)


def openai_async(base_url: str, api_key: str, task: dict, say: Say):
    from openai import AsyncOpenAI

    return asyncio.run(chat_with_async(AsyncOpenAI(base_url=base_url, api_key=api_key, default_headers=headers(task)), task, say))


def portkey(base_url: str, api_key: str, task: dict, say: Say):
    from portkey_ai import Portkey

    return chat_with(Portkey(base_url=base_url, api_key=api_key, virtual_key=task["virtual_key"]), task, say)


def portkey_async(base_url: str, api_key: str, task: dict, say: Say):
    from portkey_ai import AsyncPortkey

    return asyncio.run(chat_with_async(AsyncPortkey(base_url=base_url, api_key=api_key, virtual_key=task["virtual_key"]), task, say))


def langchain(base_url: str, api_key: str, task: dict, say: Say):
    from langchain_openai import ChatOpenAI

    llm = ChatOpenAI(model=task["model"], base_url=base_url, api_key=api_key, default_headers=headers(task))
    if task["do"] == "chat":
        return llm.invoke(PROMPT).content
    for chunk in llm.stream(PROMPT):
        say(chunk.content)


def langchain_async(base_url: str, api_key: str, task: dict, say: Say):
    from langchain_openai import ChatOpenAI

    async def run() -> str | None:
        llm = ChatOpenAI(model=task["model"], base_url=base_url, api_key=api_key, default_headers=headers(task))
        if task["do"] == "chat":
            return (await llm.ainvoke(PROMPT)).content
        async for chunk in llm.astream(PROMPT):
            say(chunk.content)

    return asyncio.run(run())


def _agents(kind: str):
    def run_one(base_url: str, api_key: str, task: dict, say: Say):
        import agents
        from openai import AsyncOpenAI

        agents.set_tracing_disabled(True)

        async def run() -> str | None:
            client = AsyncOpenAI(base_url=base_url, api_key=api_key, default_headers=headers(task))
            greeter = agents.Agent(name="Greeter", model=getattr(agents, kind)(model=task["model"], openai_client=client))
            if task["do"] == "chat":
                return (await agents.Runner.run(greeter, PROMPT)).final_output
            async for event in agents.Runner.run_streamed(greeter, PROMPT).stream_events():
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    say(event.data.delta)

        return asyncio.run(run())

    return run_one


def llamaindex(base_url: str, api_key: str, task: dict, say: Say):
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(model=task["model"], api_base=base_url, api_key=api_key, is_chat_model=True, default_headers=headers(task))
    if task["do"] == "chat":
        return llm.complete(PROMPT).text
    for chunk in llm.stream_complete(PROMPT):
        say(chunk.delta)


def llamaindex_async(base_url: str, api_key: str, task: dict, say: Say):
    from llama_index.llms.openai_like import OpenAILike

    async def run() -> str | None:
        llm = OpenAILike(model=task["model"], api_base=base_url, api_key=api_key, is_chat_model=True, default_headers=headers(task))
        if task["do"] == "chat":
            return (await llm.acomplete(PROMPT)).text
        async for chunk in await llm.astream_complete(PROMPT):
            say(chunk.delta)

    return asyncio.run(run())


def _litellm_options(base_url: str, api_key: str, task: dict) -> dict:
    return {"model": "openai/" + task["model"], "messages": MESSAGES, "api_base": base_url, "api_key": api_key, "extra_headers": headers(task)}


def litellm(base_url: str, api_key: str, task: dict, say: Say):
    import litellm

    options = _litellm_options(base_url, api_key, task)
    if task["do"] == "chat":
        return litellm.completion(**options).choices[0].message.content
    for chunk in litellm.completion(**options, stream=True):
        say(chunk.choices[0].delta.content)


def litellm_async(base_url: str, api_key: str, task: dict, say: Say):
    import litellm

    async def run() -> str | None:
        options = _litellm_options(base_url, api_key, task)
        if task["do"] == "chat":
            return (await litellm.acompletion(**options)).choices[0].message.content
        async for chunk in await litellm.acompletion(**options, stream=True):
            say(chunk.choices[0].delta.content)

    return asyncio.run(run())


PACKAGES = {
    "openai": openai, "openai-async": openai_async, "portkey-ai": portkey, "portkey-ai-async": portkey_async,
    "langchain": langchain, "langchain-async": langchain_async,
    "agents": _agents("OpenAIChatCompletionsModel"), "agents-responses": _agents("OpenAIResponsesModel"),
    "llamaindex": llamaindex, "llamaindex-async": llamaindex_async, "litellm": litellm, "litellm-async": litellm_async,
}


def run(settings: dict, task: dict) -> dict:
    end = {"name": task["name"], "text": "", "pieces": 0}

    def say(piece: str | None) -> None:
        if piece:
            end["text"] += piece
            end["pieces"] += 1

    try:
        end["text"] += PACKAGES[task["package"]](settings["base_url"], settings["api_key"], task, say) or ""
    except Exception as err:  # whatever it is, it is what the caller gets
        end["error"] = {"class": type(err).__name__, "status": getattr(err, "status_code", 0) or 0, "message": str(err)}
    return end


def main() -> None:
    settings = json.load(sys.stdin)
    # Packages may print what they think of an error.
    with contextlib.redirect_stdout(sys.stderr):
        # One after the other: imports by threads may wait for each other's locks.
        for name in settings["imports"]:
            __import__(name)
        with ThreadPoolExecutor(len(settings["tasks"])) as pool:
            ends = list(pool.map(lambda task: run(settings, task), settings["tasks"]))
    json.dump(ends, sys.stdout)


if __name__ == "__main__":
    main()
