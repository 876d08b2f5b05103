# SPDX-License-Identifier: MPL-2.0
"""Portkey's SDK at Vault's own address, without or with the gateway's redirects.

The SDK sends a placeholder as Authorization, so Vault needs its token in its own
header. Files (audio, images to edit) go through the gateway's address alone.
"""

import os

# docs:begin portkey-python-vault
import httpx
from portkey_ai import Portkey

# docs:end portkey-python-vault
from settings import MODEL, TOKEN, VIRTUAL_KEY

VAULT = os.environ.get("VAULT_ADDR") or "http://127.0.0.1:8200"

# docs:begin portkey-python-vault
base_url = f"{VAULT}/v1/portkey/proxy/{VIRTUAL_KEY}/v1"
vault = httpx.Client(base_url=base_url, headers={"X-Vault-Token": TOKEN}, follow_redirects=True, timeout=600)
portkey = Portkey(api_key=TOKEN, base_url=base_url, http_client=vault)
# docs:end portkey-python-vault

question = [{"role": "user", "content": "Say hello."}]
answer = portkey.chat.completions.create(model=MODEL, messages=question)
print(answer.choices[0].message.content)

for chunk in portkey.chat.completions.create(model=MODEL, messages=question, stream=True):
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
