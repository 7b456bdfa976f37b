"""A client of the chat API, as much of it as a terminal needs."""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

import httpx

_TIMEOUT = httpx.Timeout(10.0, read=None)  # an answer may have to wait for its turn


class ChatError(Exception):
    """No answer, or none to its end; says why and what to do."""


class ChatClient:
    """Talks to one server.

    Attributes:
        url: without a trailing slash or `/v1`.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=False)

    def __enter__(self) -> "ChatClient":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._http.close()

    def first_model(self) -> str:
        """The name of the server's first model.

        Raises:
            ChatError: no server that has models answers there.
        """
        try:
            response = self._http.get(f"{self.url}/v1/models", timeout=_TIMEOUT.connect)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        try:
            return str(response.raise_for_status().json()["data"][0]["id"])
        except (httpx.HTTPStatusError, ValueError, LookupError, TypeError) as error:
            raise ChatError(
                f"what answers at {self.url} is no Leadline server (status "
                f"{response.status_code}); give the address of one with --url"
            ) from error

    def answer(
        self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any]
    ) -> Generator[str, None, None]:
        """The pieces of an answer, as they come; closing the generator stops the answer.

        Args:
            messages: the conversation, as in OpenAI's API.
            fields: further ones of the request, `model` at least.

        Raises:
            ChatError: the server refuses, fails, or cannot be reached.
        """
        body = {**fields, "messages": messages, "stream": True}
        try:
            with self._http.stream(
                "POST", f"{self.url}/v1/chat/completions", json=body
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise ChatError(_error_text(response.read(), response.status_code))
                yield from _pieces(response.iter_lines())
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        except httpx.HTTPError as error:
            raise ChatError(f"the answer was cut off ({error}); ask again") from error

    def _unreachable(self, error: Exception) -> ChatError:
        return ChatError(
            f"no server answers at {self.url} ({error}); start one with `leadline serve`, or give "
            "its address with --url"
        )


def _pieces(lines: Iterator[str]) -> Iterator[str]:
    """The text of the events of a stream, up to `[DONE]`."""
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line:
            continue  # a comment, or the blank line after an event
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise ChatError(event["error"]["message"])
        for choice in event["choices"]:
            if text := choice["delta"].get("content"):
                yield text
    raise ChatError("the answer was cut off; ask again")


def _error_text(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the server refuses with status {status}"
