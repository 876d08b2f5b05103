# SPDX-License-Identifier: MPL-2.0
"""Portkey's SDK: chat, streamed chat, and what the gateway says of an answer."""

# docs:begin portkey-python
from portkey_ai import Portkey

# docs:end portkey-python
from settings import GATEWAY, MODEL, TOKEN, VIRTUAL_KEY

# docs:begin portkey-python
portkey = Portkey(api_key=TOKEN, virtual_key=VIRTUAL_KEY, base_url=GATEWAY)

question = [{"role": "user", "content": "Say hello."}]
answer = portkey.chat.completions.create(model=MODEL, messages=question)
print(answer.choices[0].message.content)

for chunk in portkey.chat.completions.create(model=MODEL, messages=question, stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
# docs:end portkey-python

# docs:begin portkey-python-headers
# What the answer cost in USD, and by which name the gateway's logs know it.
headers = answer.get_headers()
print("cost", headers["cost"], "trace", headers["trace-id"])
# docs:end portkey-python-headers
