"""The client against servers that write what a test tells them to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from leadline.server.bench.http_client import HttpClient, HttpError

HEAD = b"HTTP/1.1 200 OK\r\n"
Get = Callable[[bytes], Awaitable[tuple[int, bytes]]]


@pytest_asyncio.fixture
async def get_of() -> AsyncIterator[Callable[..., Awaitable[HttpClient]]]:
    """A client of a server that answers each request of a connection with the next bytes."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*answers: bytes, seen: list[bytes] | None = None) -> HttpClient:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                for answer in answers:
                    with contextlib.suppress(asyncio.IncompleteReadError):
                        head = await reader.readuntil(b"\r\n\r\n")
                        if seen is not None:
                            seen.append(head)
                        writer.write(answer)
                writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            client = HttpClient(f"http://127.0.0.1:{port}/base/", {"x-a": "1"}, insecure=False)
            stack.push_async_callback(client.close)
            return client

        yield start


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (HEAD + b"content-length: 2\r\n\r\nhi", b"hi"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", b"hi"),
        (HEAD + b"connection: close\r\n\r\nhi", b"hi"),
        (HEAD + b"content-length: 0\r\n\r\n", b""),
        (b"HTTP/1.0 404 No\r\n\r\nhi", b"hi"),
    ],
)
async def test_bodies(
    get_of: Callable[..., Awaitable[HttpClient]], answer: bytes, body: bytes
) -> None:
    client = await get_of(answer)
    status, found = await client.get("/path")
    assert (status, found) == (404 if b"404" in answer else 200, body)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed before an answer"),
        (HEAD, "closed before an answer"),
        (HEAD + b"content-length: 3\r\n\r\nhi", "cut within the answer"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", "cut within the answer"),
        (b"SSH-2.0\r\n", "is no HTTP"),
    ],
)
async def test_cuts(
    get_of: Callable[..., Awaitable[HttpClient]], answer: bytes, message: str
) -> None:
    client = await get_of(answer)
    with pytest.raises(HttpError, match=message):
        await client.get("/path")


async def test_a_connection_is_used_again_and_a_closed_one_is_not(
    get_of: Callable[..., Awaitable[HttpClient]],
) -> None:
    seen: list[bytes] = []
    answer = HEAD + b"content-length: 1\r\n\r\nx"
    client = await get_of(answer, answer, answer + b"", seen=seen)
    for _ in range(3):
        assert await client.get("/path") == (200, b"x")
    assert len(seen) == 3
    assert seen[0].startswith(b"GET /base/path HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nx-a: 1\r\n" in seen[0]


async def test_nobody_listens() -> None:
    client = HttpClient("http://127.0.0.1:1", {}, insecure=False)
    with pytest.raises(HttpError, match="no connection to 127"):
        await client.get("/")
