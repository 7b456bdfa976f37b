"""Whatever a request does, the others go on: a canary streams beside every test of the battery."""

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

CANARY, SAYS = "canary", "Hello, world!"


class Canary:
    """A stream that goes on a token at a time, and comes to its right end."""

    def __init__(self, service: Any) -> None:
        self._num_allowed = 0.0
        self._lines = self._stream(service)
        script = service.engine._outputs

        async def outputs(request: Any) -> AsyncIterator[Any]:
            num_sent = 0
            async with contextlib.aclosing(script(request)) as scripted:
                async for output in scripted:
                    num_sent += 1
                    while request.cache_salt == CANARY and num_sent > self._num_allowed:
                        await asyncio.sleep(0.001)
                    yield output

        service.engine._outputs = outputs

    def step(self) -> str:
        """The text of one more token."""
        self._num_allowed += 1
        return self._text_of(next(self._lines))

    def rest(self) -> str:
        """The text of all others."""
        self._num_allowed = math.inf
        *lines, last = self._lines
        assert last == "data: [DONE]"
        return "".join(map(self._text_of, lines))

    @staticmethod
    def _stream(service: Any) -> Iterator[str]:
        body = {"model": "tiny", "prompt": "x", "stream": True, "cache_salt": CANARY}
        with service.http.stream("POST", "/v1/completions", json=body) as response:
            yield from filter(None, response.iter_lines())

    @staticmethod
    def _text_of(line: str) -> str:
        text: str = json.loads(line.removeprefix("data: "))["choices"][0]["text"]
        return text


@pytest.fixture(autouse=True)
def canary(service: Any) -> Iterator[Canary]:
    canary = Canary(service)
    text = canary.step()
    yield canary
    text += canary.step()
    assert text + canary.rest() == SAYS
    assert service.http.post("/v1/completions", json={"model": "tiny", "prompt": "x"}).is_success


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error of a response, of which envelope and headers are as they must be."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert len(response.content) < 1500, "an error echoes what was sent"
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    return error


@pytest.fixture(name="error_of", scope="session")
def _error_of() -> Any:
    return error_of
