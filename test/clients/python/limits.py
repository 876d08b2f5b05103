# SPDX-License-Identifier: MPL-2.0
"""What the official openai package makes of the limits of virtual keys.

Run by name (`python -m unittest -v limits`), with what README.md says of it.
"""

import os
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import openai


def required(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"set {name}: see test/clients/python/README.md")
    return value


class Case(unittest.TestCase):
    """A client with the SDK's own retries, which notes each attempt."""

    def setUp(self):
        self.attempts = []  # (sent, ended, status, retry-after)

    def client(self, variable: str, **options) -> openai.OpenAI:
        def sent(request):
            request.extensions["sent"] = time.monotonic()

        def ended(response):
            self.attempts.append((
                response.request.extensions["sent"], time.monotonic(),
                response.status_code, response.headers.get("retry-after"),
            ))

        client = openai.OpenAI(
            base_url=required(variable), api_key=required("OPENAI_API_KEY"), timeout=60,
            http_client=openai.DefaultHttpxClient(event_hooks={"request": [sent], "response": [ended]}), **options,
        )
        self.addCleanup(client.close)
        return client

    @staticmethod
    def chat(client: openai.OpenAI, model: str = "up-ok", max_tokens: int = 100, **extra):
        return client.chat.completions.create(
            model=model, max_tokens=max_tokens, messages=[{"role": "user", "content": "Say hello."}], **extra)


class Budget(Case):
    def check(self, stream: bool) -> None:
        with self.assertRaises(openai.APIStatusError) as caught:
            self.chat(self.client("SPENT_BASE_URL"), stream=stream)
        err = caught.exception
        self.assertEqual(err.status_code, 402)
        self.assertEqual(err.code, "budget_exceeded")
        self.assertEqual(err.type, "insufficient_quota")
        self.assertRegex(err.message, r"^Error code: 402 - .*the limit .* is used up: .*; it resets at \d{4}-")
        self.assertEqual(len(self.attempts), 1)

    def test_that_is_used_up_is_APIStatusError_told_once(self):
        self.check(stream=False)

    def test_that_is_used_up_is_APIStatusError_told_once_streamed(self):
        self.check(stream=True)

    def test_smaller_than_the_request_is_PermissionDeniedError_told_once(self):
        with self.assertRaises(openai.PermissionDeniedError) as caught:
            self.chat(self.client("SMALL_BASE_URL"), max_tokens=5000)
        self.assertEqual(caught.exception.code, "request_exceeds_limit")
        self.assertRegex(caught.exception.message, r"the request may need up to .* make it smaller")
        self.assertEqual(len(self.attempts), 1)


class Concurrency(Case):
    def three(self, client: openai.OpenAI) -> list:
        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(self.chat, client, "up-slow:1500") for _ in range(3)]
            return [call.exception() or call.result() for call in calls]

    def test_too_many_at_once_are_tried_again_after_retry_after(self):
        for answer in self.three(self.client("BUSY_BASE_URL", max_retries=20)):
            self.assertEqual(answer.choices[0].message.content, "Hello from the upstream.")
        refused = [a for a in self.attempts if a[2] == 429]
        self.assertTrue(refused, "nothing was refused, so nothing was tried again")
        self.assertEqual(len(self.attempts), len(refused) + 3)
        for _, ended, _, retry_after in refused:
            self.assertRegex(retry_after, r"^[1-9]\d*$")
            # Nothing is sent for the same call until then; of three calls, no
            # more than the two others can be.
            soon = [a for a in self.attempts if ended < a[0] < ended + int(retry_after) - 0.02]
            self.assertLessEqual(len(soon), 2, self.attempts)

    def test_without_retries_the_same_is_RateLimitError(self):
        ends = self.three(self.client("BUSY_BASE_URL", max_retries=0))
        refused = [e for e in ends if isinstance(e, Exception)]
        self.assertTrue(refused)
        for err in refused:
            self.assertIsInstance(err, openai.RateLimitError)
            self.assertEqual(err.code, "rate_limit_exceeded")
            self.assertRegex(err.message, r"under way on the limit concurrent=1 of virtual key")


if __name__ == "__main__":
    unittest.main()
