# SPDX-License-Identifier: MPL-2.0
"""The official openai package, unmodified, against any base URL.

Nothing here asserts times: through Vault's inline path a stream arrives all at
once.
"""

import asyncio
import math
import unittest

import openai

import settings

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say hello, größtenteils in English. 👋"},
]


class Case(unittest.TestCase):
    """A client for the case, and what the cases share."""

    def client(self, base_url: str = settings.BASE_URL) -> openai.OpenAI:
        client = openai.OpenAI(base_url=base_url, api_key=settings.API_KEY, max_retries=0, timeout=60)
        self.addCleanup(client.close)
        return client

    def chat(self, base_url: str = settings.BASE_URL, model: str = settings.MODEL, **extra):
        return self.client(base_url).chat.completions.create(model=model, messages=MESSAGES, **extra)

    def assert_answer(self, text) -> None:
        """Checks a text against what the model is known to say."""
        self.assertIsInstance(text, str)
        self.assertNotEqual(text, "")
        if settings.ANSWER:
            self.assertEqual(text, settings.ANSWER)

    def assert_readable(self, err: openai.APIStatusError, status: int) -> None:
        """Checks that an exception says in words what went wrong."""
        self.assertEqual(err.status_code, status)
        self.assertRegex(err.message, rf"^Error code: {status} - [^{{ ]+ \S+ \S+")


def chunk_text(chunk) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


class Completions(Case):
    def test_chat(self):
        answer = self.chat()
        self.assertEqual(answer.object, "chat.completion")
        self.assert_answer(answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(answer.usage.prompt_tokens, 0)
        self.assertEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)

    def test_chat_with_a_cap_ends_with_length(self):
        answer = self.chat(max_completion_tokens=2)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 2)

    def test_streamed_chat_joins_to_the_same_text_and_has_no_usage_unasked(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True))
        self.assertGreater(len(chunks), 2)
        self.assertEqual("".join(map(chunk_text, chunks)), whole.choices[0].message.content)
        self.assertTrue(all(c.usage is None and len(c.choices) == 1 for c in chunks))
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_streamed_chat_with_include_usage_ends_with_the_same_usage(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(map(chunk_text, chunks)), whole.choices[0].message.content)
        self.assertEqual([c.usage for c in chunks if c.usage], [whole.usage])
        self.assertEqual(chunks[-1].choices, [])
        self.assertEqual(chunks[-1].usage, whole.usage)

    def test_streamed_chat_with_the_async_client(self):
        async def ask() -> str:
            async with openai.AsyncOpenAI(
                base_url=settings.BASE_URL, api_key=settings.API_KEY, max_retries=0, timeout=60
            ) as client:
                stream = await client.chat.completions.create(model=settings.MODEL, messages=MESSAGES, stream=True)
                return "".join([chunk_text(chunk) async for chunk in stream])

        self.assert_answer(asyncio.run(ask()))

    def test_completion(self):
        answer = self.client().completions.create(model=settings.MODEL, prompt="Say hello.")
        self.assertEqual(answer.object, "text_completion")
        self.assert_answer(answer.choices[0].text)
        self.assertGreater(answer.usage.completion_tokens, 0)

    def test_response(self):
        answer = self.client().responses.create(model=settings.MODEL, input="Say hello.")
        self.assertEqual(answer.status, "completed")
        self.assert_answer(answer.output_text)
        self.assertGreater(answer.usage.output_tokens, 0)

    def test_streamed_response(self):
        whole = self.client().responses.create(model=settings.MODEL, input="Say hello.")
        events = list(self.client().responses.create(model=settings.MODEL, input="Say hello.", stream=True))
        text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
        self.assertEqual(text, whole.output_text)
        self.assertEqual(events[-1].type, "response.completed")
        self.assertEqual(events[-1].response.usage, whole.usage)


class Embeddings(Case):
    DIMENSIONS = 64

    def check(self, **extra) -> None:
        answer = self.client().embeddings.create(
            model=settings.EMBEDDING_MODEL, input=["hello", "world"], dimensions=self.DIMENSIONS, **extra
        )
        self.assertEqual([d.index for d in answer.data], [0, 1])
        for row in answer.data:
            self.assertEqual(len(row.embedding), self.DIMENSIONS)
            self.assertTrue(all(isinstance(x, float) for x in row.embedding))
            self.assertAlmostEqual(math.hypot(*row.embedding), 1, places=3)
        self.assertGreater(answer.usage.total_tokens, 0)

    def test_embeddings_in_the_sdks_own_encoding(self):
        # The SDK asks for base64 by itself and decodes it.
        self.check()

    def test_embeddings_as_floats(self):
        self.check(encoding_format="float")


class Models(Case):
    def test_models(self):
        models = list(self.client().models.list())
        self.assertTrue(models)
        for model in models:
            self.assertEqual(model.object, "model")
            self.assertTrue(model.id)


class ProviderErrors(Case):
    """A provider's error arrives as the SDK's own exception."""

    def check(self, status: int, exception: type, stream: bool) -> None:
        with self.assertRaises(exception) as caught:
            self.chat(model=settings.error_model(status), stream=stream)
        self.assert_readable(caught.exception, status)
        self.assertTrue(caught.exception.type, "no type")


def _add_provider_errors() -> None:
    """Gives each error a method of its own, for a line of its own."""

    def case(status: int, exception: type, stream: bool):
        return lambda self: self.check(status, exception, stream)

    for status, exception in (
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ):
        for stream in (False, True):
            name = f"test_{status}{'_streamed' if stream else ''}_is_{exception.__name__}"
            setattr(ProviderErrors, name, case(status, exception, stream))


_add_provider_errors()


class Refusals(Case):
    def test_of_a_model_is_PermissionDeniedError_that_names_it(self):
        with self.assertRaises(openai.PermissionDeniedError) as caught:
            self.chat(model=settings.DENIED_MODEL)
        self.assert_readable(caught.exception, 403)
        self.assertIn(settings.DENIED_MODEL, caught.exception.message)
        self.assertEqual(caught.exception.code, "model_not_allowed")

    def test_by_Vaults_policy_is_PermissionDeniedError(self):
        # Vault answers with {"errors":[…]} and no "error", of which this SDK's
        # message is the status alone; the words are in the exception's body.
        with self.assertRaises(openai.PermissionDeniedError) as caught:
            self.chat(base_url=settings.DENIED_BASE_URL)
        self.assertEqual(caught.exception.status_code, 403)
        self.assertIn("403", caught.exception.message)
        self.assertIn("permission denied", "".join(caught.exception.body["errors"]))

    def test_of_an_unknown_virtual_key_is_NotFoundError_that_names_it(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(base_url=settings.MISSING_BASE_URL)
        err = caught.exception
        self.assert_readable(err, 404)
        self.assertEqual(err.code, "virtual_key_not_found")
        self.assertIn(settings.MISSING_ROLE, err.message)
        # What the Vault CLI prints of the same answer.
        self.assertIn(settings.MISSING_ROLE, "".join(err.response.json()["errors"]))


if __name__ == "__main__":
    unittest.main()
