# SPDX-License-Identifier: MPL-2.0
"""The settings of the suite, all from the environment: see README.md."""

import os
import re


def _required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"set {name}: see test/clients/python/README.md")
    return value


BASE_URL = _required("OPENAI_BASE_URL")
API_KEY = _required("OPENAI_API_KEY")
DENIED_BASE_URL = _required("DENIED_BASE_URL")
MISSING_BASE_URL = _required("MISSING_BASE_URL")

_role = re.search(r"/proxy/([^/]+)/", MISSING_BASE_URL)
if _role is None:
    raise SystemExit(f"MISSING_BASE_URL must contain /proxy/<role>/, not {MISSING_BASE_URL}")
MISSING_ROLE = _role.group(1)

MODEL = os.environ.get("MODEL") or "up-ok"
# What the model says; only known of test/upstream's.
ANSWER = os.environ.get("ANSWER") if os.environ.get("MODEL") else "Hello from the upstream."
EMBEDDING_MODEL = os.environ.get("EMBEDDING_MODEL") or "up-ok"
DENIED_MODEL = os.environ.get("DENIED_MODEL") or "up-403"


def error_model(status: int) -> str:
    """The model with which the provider fails with that status."""
    return (os.environ.get("ERROR_MODEL") or "up-{status}").replace("{status}", str(status))
