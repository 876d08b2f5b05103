# SPDX-License-Identifier: MPL-2.0
"""Makes calls with the official packages, unmodified, and tells what each of
them made of the answers. It judges nothing: README.md says what goes in and
comes out.
"""

import asyncio
import base64
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import openai
import portkey_ai


def client(call: dict):
    if call["sdk"].startswith("portkey"):
        make = portkey_ai.AsyncPortkey if call["sdk"].endswith("-async") else portkey_ai.Portkey
        return make(base_url=call["base_url"], api_key=call["api_key"], virtual_key=call.get("virtual_key"))
    make = openai.AsyncOpenAI if call["sdk"].endswith("-async") else openai.OpenAI
    return make(base_url=call["base_url"], api_key=call["api_key"], default_headers=call.get("headers"), max_retries=0, timeout=60)


def request(call: dict) -> dict:
    """What create() is given."""
    more = {}
    if call.get("authorization"):
        # Its own option of that name adds a second Authorization to the SDK's.
        more["extra_headers"] = {"Authorization": call["authorization"]}
    return {**call["params"], **more}


class Listener:
    """Notes when each piece of text arrives, in milliseconds since the call."""

    def __init__(self, call: dict, said: dict):
        self.call, self.said, self.began = call, said, time.monotonic()

    def hear(self, chunk) -> bool:
        """Says whether that was enough."""
        piece = chunk.choices[0].delta.content if chunk.choices else None
        if piece:
            self.said["text"] += piece
            self.said["arrivals"].append((time.monotonic() - self.began) * 1000)
        return len(self.said["arrivals"]) == self.call.get("stop_after")


def stream(call: dict, said: dict) -> None:
    listener = Listener(call, said)
    answer = client(call).chat.completions.create(**request(call), stream=True)
    for chunk in answer:
        if listener.hear(chunk):
            answer.close()
            return


async def stream_async(call: dict, said: dict) -> None:
    listener = Listener(call, said)
    answer = await client(call).chat.completions.create(**request(call), stream=True)
    async for chunk in answer:
        if listener.hear(chunk):
            await answer.close()
            return


def make(call: dict, said: dict) -> None:
    sdk = client(call)
    with ExitStack() as files:
        params = request(call)
        for name, path in call.get("files", {}).items():
            if isinstance(path, list):
                params[name] = [files.enter_context(open(p, "rb")) for p in path]
            else:
                params[name] = files.enter_context(open(path, "rb"))
        match call["do"]:
            case "chat":
                said["text"] = sdk.chat.completions.create(**params).choices[0].message.content
            case "transcribe":
                said["text"] = sdk.audio.transcriptions.create(**params).text
            case "edit":
                said["text"] = sdk.images.edit(**params).data[0].b64_json
            case "speech":
                said["text"] = base64.b64encode(sdk.audio.speech.create(**params).read()).decode()
            case what:
                raise ValueError(f"do what? {what}")


def run(call: dict) -> dict:
    said = {"name": call["name"], "text": "", "arrivals": []}
    try:
        if call["do"] != "stream":
            make(call, said)
        elif call["sdk"].endswith("-async"):
            asyncio.run(stream_async(call, said))
        else:
            stream(call, said)
    except Exception as err:  # whatever it is, it is what the caller gets
        said["error"] = {
            "class": type(err).__name__, "status": getattr(err, "status_code", 0) or 0,
            "code": getattr(err, "code", None) or "", "message": str(err),
        }
    return said


if __name__ == "__main__":
    calls = json.load(sys.stdin)
    with ThreadPoolExecutor(len(calls)) as pool:
        json.dump(list(pool.map(run, calls)), sys.stdout)
