# SPDX-License-Identifier: MPL-2.0
"""Another virtual key for one call. Unlike in Node, the client isn't changed."""

from concurrent.futures import ThreadPoolExecutor

from portkey_ai import Portkey
from settings import GATEWAY, MODEL, OTHER_VIRTUAL_KEY, TOKEN, VIRTUAL_KEY

question = [{"role": "user", "content": "Say hello."}]

# docs:begin portkey-python-per-call
portkey = Portkey(api_key=TOKEN, virtual_key=VIRTUAL_KEY, base_url=GATEWAY)

answer = portkey.with_options(virtual_key=OTHER_VIRTUAL_KEY).chat.completions.create(model=MODEL, messages=question)
# docs:end portkey-python-per-call
print(OTHER_VIRTUAL_KEY, answer.choices[0].message.content)

answer = portkey.chat.completions.create(model=MODEL, messages=question)
print(VIRTUAL_KEY, answer.choices[0].message.content)

# docs:begin portkey-python-per-call-many
# with_options returns a client of its own, so threads may share what it is made from.
def ask(virtual_key: str) -> str:
    client = portkey.with_options(virtual_key=virtual_key)
    return client.chat.completions.create(model=MODEL, messages=question).choices[0].message.content


with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(ask, [VIRTUAL_KEY, OTHER_VIRTUAL_KEY] * 2))
# docs:end portkey-python-per-call-many
print(*answers)
