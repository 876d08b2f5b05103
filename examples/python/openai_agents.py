# SPDX-License-Identifier: MPL-2.0
"""The OpenAI Agents SDK: an agent, a streamed answer, and a tool."""

# docs:begin openai-agents-python
import asyncio

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent

# docs:end openai-agents-python
from settings import GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin openai-agents-python
# Traces hold prompts and answers, and would go to OpenAI itself, past Vault.
set_tracing_disabled(True)

client = AsyncOpenAI(api_key=TOKEN, base_url=GATEWAY, default_headers={"x-portkey-virtual-key": VIRTUAL_KEY})
# OpenAIResponsesModel takes the same, where the provider has /v1/responses.
model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


greeter = Agent(name="Greeter", instructions="Be brief.", model=model)
forecaster = Agent(name="Forecaster", model=model, tools=[weather])


async def main() -> None:
    answer = await Runner.run(greeter, "Say hello.")
    print(answer.final_output)

    async for event in Runner.run_streamed(greeter, "Say hello.").stream_events():
        if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
            print(event.data.delta, end="", flush=True)
    print()

    answer = await Runner.run(forecaster, "What is the weather in Paris?")
    print(answer.final_output)


asyncio.run(main())
# docs:end openai-agents-python
