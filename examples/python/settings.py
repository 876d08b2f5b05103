# SPDX-License-Identifier: MPL-2.0
"""The settings of the examples, all from the environment."""

import os


def _required(name: str, example: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"set {name}, for example {name}={example}")
    return value


# A Vault token that may use the virtual keys, or a leased key (vk-…).
TOKEN = _required("VAULT_TOKEN", "$(vault print token)")

# The gateway's address with /v1 at its end.
GATEWAY = _required("PORTKEY_GATEWAY", "http://127.0.0.1:8300/v1")

# The virtual keys, roles in Vault. The second is used by portkey_per_call.py alone.
VIRTUAL_KEY = os.environ.get("VIRTUAL_KEY") or "team-a"
OTHER_VIRTUAL_KEY = os.environ.get("OTHER_VIRTUAL_KEY") or "team-b"

# What the virtual keys' provider has.
MODEL = os.environ.get("MODEL") or "gpt-4o-mini"
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL") or "text-embedding-3-small"

# The prompt template of portkey_prompts.py.
PROMPT = os.environ.get("PROMPT") or "greeting"
