"""A client of the chat API, as much of it as a terminal needs."""

import enum
import json
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from leadline.server.config import KEY_VARIABLE

_TIMEOUT = httpx.Timeout(10.0, read=None)  # an answer may have to wait for its turn


class Kind(enum.Enum):
    """What a piece of an answer belongs to."""

    REASONING = enum.auto()
    CONTENT = enum.auto()
    CALL = enum.auto()


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer; that of a call is the function's name, or some of its arguments.

    Attributes:
        begins: a call begins with it.
    """

    kind: Kind
    text: str
    begins: bool = False


class ChatError(Exception):
    """No answer, or none to its end; says why and what to do."""


class ChatClient:
    """Talks to one server.

    Attributes:
        url: without a trailing slash or `/v1`.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """`api_key`: sent with every request; None for none."""
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        # The system's authorities, and those in $SSL_CERT_FILE; reading them takes its time.
        verify = ssl.create_default_context() if self.url.startswith("https:") else False
        self._http = httpx.Client(timeout=_TIMEOUT, trust_env=False, headers=headers, verify=verify)

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
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ChatError(_error_text(response.content, response.status_code))
        try:
            return str(response.raise_for_status().json()["data"][0]["id"])
        except (httpx.HTTPStatusError, ValueError, LookupError, TypeError) as error:
            raise ChatError(
                f"what answers at {self.url} is no Leadline server (status "
                f"{response.status_code}); give the address of one with --url"
            ) from error

    def answer(
        self, messages: Sequence[Mapping[str, str]], fields: Mapping[str, Any]
    ) -> Generator[Piece, None, None]:
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
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ChatError(
                f"the certificate of {self.url} is not trusted ({error}); set SSL_CERT_FILE to the "
                "file of its authority, or give the name that it is made for with --url"
            )
        return ChatError(
            f"no server answers at {self.url} ({error}); start one with `leadline serve`, or give "
            "its address with --url"
        )


def _pieces(lines: Iterator[str]) -> Iterator[Piece]:
    """What the events of a stream say, up to `[DONE]`."""
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
            yield from _pieces_of(choice["delta"])
    raise ChatError("the answer was cut off; ask again")


def _pieces_of(delta: Mapping[str, Any]) -> Iterator[Piece]:
    if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
        yield Piece(Kind.REASONING, reasoning)
    if text := delta.get("content"):
        yield Piece(Kind.CONTENT, text)
    for call in delta.get("tool_calls") or ():
        function = call["function"]
        if name := function.get("name"):
            yield Piece(Kind.CALL, name, begins=True)
        if arguments := function.get("arguments"):
            yield Piece(Kind.CALL, arguments)


def _error_text(body: bytes, status: int) -> str:
    try:
        text = str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        text = f"the server refuses with status {status}"
    if status == httpx.codes.UNAUTHORIZED:
        text += f"; here with --api-key, or in ${KEY_VARIABLE}"
    return text
