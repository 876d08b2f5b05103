# SPDX-License-Identifier: MPL-2.0
"""Calls on many virtual keys at once, made with one client of portkey-ai that is
given another virtual key for each call. It judges nothing: README.md says what goes
in and comes out.
"""

import asyncio
import json
import random
import sys
from concurrent.futures import ThreadPoolExecutor

import portkey_ai

AT_ONCE = 16


def plan(settings: dict) -> list[dict]:
    """The calls in the order in which they begin: on each virtual key as often as on
    any other, and one in ten on the client as it was made, with the first."""
    keys, dice = settings["virtual_keys"], random.Random(settings["seed"])
    calls = [{"virtual_key": keys[i % len(keys)], "override": True} for i in range(settings["calls"])]
    for call in calls[:: 10]:
        call["override"] = False
        call["virtual_key"] = keys[0]
    dice.shuffle(calls)
    for i, call in enumerate(calls):
        call["says"] = f"call {i} is for {call['virtual_key']}."
    return calls


def request(settings: dict, call: dict) -> dict:
    return {"model": settings["model"], "messages": [{"role": "user", "content": call["says"]}]}


def chosen(sdk, call: dict):
    return sdk.with_options(virtual_key=call["virtual_key"]) if call["override"] else sdk


def told(call: dict, answer) -> dict:
    return {"virtual_key": call["virtual_key"], "cost": answer.get_headers()["cost"], "tokens": answer.usage.total_tokens}


def threads(settings: dict, calls: list[dict], sdk) -> list[dict]:
    def make(call: dict) -> dict:
        return told(call, chosen(sdk, call).chat.completions.create(**request(settings, call)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(make, calls))


async def tasks(settings: dict, calls: list[dict], sdk) -> list[dict]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def make(call: dict) -> dict:
        async with gate:
            return told(call, await chosen(sdk, call).chat.completions.create(**request(settings, call)))

    return await asyncio.gather(*map(make, calls))


def main() -> None:
    settings = json.load(sys.stdin)
    options = {"api_key": settings["api_key"], "base_url": settings["base_url"], "virtual_key": settings["virtual_keys"][0]}
    sdk, sdk_async = portkey_ai.Portkey(**options), portkey_ai.AsyncPortkey(**options)
    before = dict(sdk.allHeaders), dict(sdk_async.allHeaders)
    calls = plan(settings)
    half = len(calls) // 2
    with ThreadPoolExecutor(1) as pool:  # both halves at the same time
        first = pool.submit(threads, settings, calls[:half], sdk)
        ends = asyncio.run(tasks(settings, calls[half:], sdk_async)) + first.result()
    unchanged = before == (sdk.allHeaders, sdk_async.allHeaders) and sdk.virtual_key == sdk_async.virtual_key == options["virtual_key"]
    json.dump({"ends": ends, "unchanged": unchanged}, sys.stdout)


if __name__ == "__main__":
    main()
