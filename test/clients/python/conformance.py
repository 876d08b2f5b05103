# SPDX-License-Identifier: MPL-2.0
"""One table of calls, made with the official packages by every way to a virtual
key: what the provider must receive of each, and what the package must return.

It judges nothing: README.md says what goes in and comes out.
"""

import asyncio
import base64
import inspect
import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, NamedTuple

import httpx
import openai
import portkey_ai

CHAT, TEXT, EMBED = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
SPEECH, HEAR = "/v1/audio/speech", "/v1/audio/transcriptions"
IMAGES, MODERATE, RESPOND, MODELS = "/v1/images/generations", "/v1/moderations", "/v1/responses", "/v1/models"

# What the imitated provider answers with.
ANSWER = "Hello from the upstream."
PIECES = ["Hello", " from", " the", " upstream", "."]

QUESTION = "Say hello, größtenteils. 👋"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
# The provider counts a token for four bytes of text.
TOKENS = -(-len(("Be brief." + QUESTION).encode()) // 4)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
RECORDING = bytes(range(256)) * 100
# portkey-ai opens a file by its name, too.
FOLDER = tempfile.TemporaryDirectory()
FILE = Path(FOLDER.name, "hello.webm")
FILE.write_bytes(RECORDING)


class Case(NamedTuple):
    name: str
    # call makes the call: it is given the client, and what makes a model's name.
    call: Callable[[Any, Callable[[str], str]], Any]
    # path and sends are what the provider must receive: members of the body, among
    # others; form instead says that it is a form.
    path: str
    sends: dict
    # look is what of the answer, or of the list of a stream's pieces, is returned.
    look: Callable[[Any], Any]
    want: Any
    form: bool = False
    only: str = ""  # the package that has it


def said(answer) -> list:
    usage = answer.usage
    return [answer.choices[0].message.content, answer.choices[0].finish_reason, usage.prompt_tokens, usage.completion_tokens]


def pieces(chunks) -> list:
    return [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]


def usages(chunks) -> list:
    return [[c.usage.prompt_tokens, c.usage.completion_tokens] for c in chunks if c.usage]


def tool_call(answer) -> list:
    call = answer.choices[0].message.tool_calls[0]
    return [call.function.name, json.loads(call.function.arguments)]


CASES = [
    Case("chat",
         lambda c, m: c.chat.completions.create(model=m("up-ok"), messages=MESSAGES, temperature=0.25, max_tokens=20, user="someone"),
         CHAT, {"model": "up-ok", "messages": MESSAGES, "temperature": 0.25, "max_tokens": 20, "user": "someone"},
         said, [ANSWER, "stop", TOKENS, 5]),
    Case("chat, cut off",
         lambda c, m: c.chat.completions.create(model=m("up-ok"), messages=MESSAGES, max_completion_tokens=2),
         CHAT, {"max_completion_tokens": 2},
         said, ["Hello from", "length", TOKENS, 2]),
    Case("chat without a model",
         lambda c, m: c.chat.completions.create(messages=MESSAGES),
         CHAT, {"model": "up-ok"},
         said, [ANSWER, "stop", TOKENS, 5], only="portkey"),
    Case("chat with tools",
         lambda c, m: c.chat.completions.create(model=m("up-ok"), messages=MESSAGES, tools=[WEATHER], tool_choice="auto"),
         CHAT, {"tools": [WEATHER], "tool_choice": "auto"},
         tool_call, ["weather", {"city": "Paris"}]),
    Case("streamed chat",
         lambda c, m: c.chat.completions.create(model=m("up-ok"), messages=MESSAGES, stream=True),
         # The gateway asks for the usage, and keeps it to itself.
         CHAT, {"stream": True, "stream_options": {"include_usage": True}},
         lambda chunks: [pieces(chunks), usages(chunks), chunks[-1].choices[0].finish_reason], [PIECES, [], "stop"]),
    Case("streamed chat with usage",
         lambda c, m: c.chat.completions.create(model=m("up-ok"), messages=MESSAGES, stream=True, stream_options={"include_usage": True}),
         CHAT, {"stream": True, "stream_options": {"include_usage": True}},
         lambda chunks: [pieces(chunks), usages(chunks)], [PIECES, [[TOKENS, 5]]]),
    Case("completion",
         lambda c, m: c.completions.create(model=m("up-ok"), prompt="Say hello.", max_tokens=20),
         TEXT, {"model": "up-ok", "prompt": "Say hello.", "max_tokens": 20},
         lambda a: [a.object, a.choices[0].text, a.usage.total_tokens], ["text_completion", ANSWER, 8]),
    Case("streamed completion",
         lambda c, m: c.completions.create(model=m("up-ok"), prompt="Say hello.", stream=True),
         TEXT, {"prompt": "Say hello.", "stream": True},
         lambda chunks: "".join(c.choices[0].text for c in chunks if c.choices), ANSWER),
    Case("embeddings",
         lambda c, m: c.embeddings.create(model=m("text-embedding-3-small"), input=["hello", "world"], dimensions=8, encoding_format="float"),
         EMBED, {"model": "text-embedding-3-small", "input": ["hello", "world"], "dimensions": 8},
         lambda a: [[len(row.embedding) for row in a.data], a.usage.prompt_tokens], [[8, 8], 3]),
    Case("image",
         lambda c, m: c.images.generate(model=m("gpt-image-1"), prompt="A lighthouse.", n=1),
         IMAGES, {"model": "gpt-image-1", "prompt": "A lighthouse.", "n": 1},
         lambda a: a.data[0].b64_json, "aW1hZ2U="),
    Case("transcription",
         lambda c, m: c.audio.transcriptions.create(model=m("up-ok"), file=FILE.open("rb"), language="en"),
         HEAR, {"model": "up-ok", "language": "en", "file": base64.b64encode(RECORDING).decode()},
         lambda a: a.text, ANSWER, form=True),
    Case("speech",
         lambda c, m: c.audio.speech.create(model=m("tts-1"), input="Say hello.", voice="alloy"),
         SPEECH, {"model": "tts-1", "input": "Say hello.", "voice": "alloy"},
         lambda a: base64.b64encode(a.read()).decode(), "//uQZAAA/wA="),
    Case("moderation",
         lambda c, m: c.moderations.create(model=m("omni-moderation-latest"), input="Say hello."),
         MODERATE, {"model": "omni-moderation-latest", "input": "Say hello."},
         lambda a: [row.flagged for row in a.results], [False]),
    Case("response",
         lambda c, m: c.responses.create(model=m("up-ok"), input="Say hello.", instructions="Be brief.", max_output_tokens=20),
         RESPOND, {"model": "up-ok", "input": "Say hello.", "instructions": "Be brief.", "max_output_tokens": 20},
         lambda a: [a.status, a.output_text, a.usage.input_tokens, a.usage.output_tokens], ["completed", ANSWER, 5, 5]),
    Case("streamed response",
         lambda c, m: c.responses.create(model=m("up-ok"), input="Say hello.", stream=True),
         RESPOND, {"input": "Say hello.", "stream": True},
         lambda events: ["".join(e.delta for e in events if e.type == "response.output_text.delta"), events[-1].type],
         [ANSWER, "response.completed"]),
    Case("models",
         lambda c, m: c.models.list(),
         MODELS, {},
         lambda page: sorted(model.id for model in page.data), ["gpt-4o", "gpt-4o-mini", "text-embedding-3-small", "up-ok"]),
]


def client(door: dict):
    package, _, kind = door["sdk"].partition("-")
    options = {"api_key": door["api_key"], "base_url": door["base_url"]}
    if package == "openai":
        make = openai.AsyncOpenAI if kind else openai.OpenAI
        return make(**options, default_headers=door.get("headers"), timeout=60)
    if door.get("http_headers"):
        make = httpx.AsyncClient if kind else httpx.Client
        options["http_client"] = make(base_url=door["base_url"], headers=door["http_headers"], follow_redirects=True, timeout=60)
    make = portkey_ai.AsyncPortkey if kind else portkey_ai.Portkey
    return make(**options, virtual_key=door.get("virtual_key"), provider=door.get("provider"))


async def result(answer):
    """The answer of a client of either kind; a stream as the list of its pieces."""
    if inspect.isawaitable(answer):
        answer = await answer
    if hasattr(answer, "__anext__"):
        return [piece async for piece in answer]
    return list(answer) if hasattr(answer, "__next__") else answer


async def through(door: dict, cases: list[Case]) -> list[dict]:
    """Makes every call of the table by one way, one after the other."""
    sdk, lines = client(door), []
    for case in cases:
        if case.name in door.get("without", []) or case.only not in ("", door["sdk"].partition("-")[0]):
            continue
        line = {"door": door["name"], "case": case.name, "path": case.path, "sends": case.sends, "form": case.form,
                "want": case.want}
        try:
            line["got"] = case.look(await result(case.call(sdk, lambda name: door.get("model_prefix", "") + name)))
        except Exception as err:  # whatever it is, it is what the caller gets
            line["error"] = f"{type(err).__name__}: {err}"
        lines.append(line)
    return lines


def main(cases: list[Case]) -> None:
    doors = json.load(sys.stdin)
    with ThreadPoolExecutor(4) as pool:
        for lines in pool.map(lambda door: asyncio.run(through(door, cases)), doors):
            for line in lines:
                print(json.dumps(line))


if __name__ == "__main__":
    main(CASES)
