"""HTTP/1.1 requests with as little between the socket and the clock as there can be."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httptools
import msgspec

_READ_BYTES = 1 << 16
_CONNECT_S = 60.0  # a server may be slow to accept a thousand connections at once
_IDLE_S = 2.0  # servers close idle connections after five seconds or more
_OK = range(200, 300)


class HttpError(Exception):
    """No whole answer: unreachable, not HTTP, or cut off."""


class _Head:
    """Callbacks of the parser: what an answer consists of."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.headers: dict[bytes, bytes] = {}
        self.has_headers = False
        self.is_complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.has_headers = True

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.used_s = 0.0

    @property
    def is_usable(self) -> bool:
        is_fresh = time.monotonic() - self.used_s < _IDLE_S
        return is_fresh and not (self.reader.at_eof() or self.writer.is_closing())

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Answer:
    """An answer whose head has come.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, connection: _Connection) -> None:
        self.connection = connection
        self._head = _Head()
        self._parser: Any = httptools.HttpResponseParser(self._head)
        self.status = 0

    async def read_head(self) -> None:
        """Wait for the head.

        Raises:
            HttpError: the connection ends before.
        """
        while not self._head.has_headers:
            data = await self.connection.reader.read(_READ_BYTES)
            if not data:
                raise HttpError("the connection was closed before an answer")
            self._feed(data)
        self.status = self._parser.get_status_code()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes.

        Raises:
            HttpError: the connection is cut before the body's end.
        """
        while True:
            if self._head.body:
                body, self._head.body = b"".join(self._head.body), []
                yield body
            if self._head.is_complete:
                return
            try:
                data = await self.connection.reader.read(_READ_BYTES)
            except OSError as error:
                raise HttpError(f"the connection was cut within the answer: {error}") from error
            if data:
                self._feed(data)
            elif self._ends_with_connection:
                return
            else:
                raise HttpError("the connection was cut within the answer")

    async def read(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can carry another request."""
        return self._head.is_complete and bool(self._parser.should_keep_alive())

    @property
    def _ends_with_connection(self) -> bool:
        names = self._head.headers
        return b"content-length" not in names and b"transfer-encoding" not in names

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise HttpError(f"what answers there is no HTTP: {error}") from error


class HttpClient:
    """Sends requests to one server over as many connections as there are requests at a time."""

    def __init__(self, base_url: str, headers: Mapping[str, str], *, insecure: bool) -> None:
        """`headers` go with every request; `insecure`: any TLS certificate will do."""
        url = urlsplit(base_url)
        self._host, self._base_path = url.hostname or "", url.path.rstrip("/")
        self._tls = _tls(insecure=insecure) if url.scheme == "https" else None
        self._port = url.port or (443 if self._tls else 80)
        self._headers = {"host": url.netloc.rpartition("@")[2], "accept": "*/*", **headers}
        self._idle: list[_Connection] = []

    async def close(self) -> None:
        """Close all connections that are not in use."""
        for connection in self._idle:
            await connection.close()
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Answer]:
        """Send a request; gives the answer when its head has come.

        Raises:
            HttpError: there is none.
        """
        message = self._message(method, path, body, headers or {})
        answer = await self._answer(message)
        try:
            yield answer
        finally:
            if answer.is_reusable:
                answer.connection.used_s = time.monotonic()
                self._idle.append(answer.connection)
            else:
                await answer.connection.close()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a GET."""
        async with self.open("GET", path) as answer:
            return answer.status, await answer.read()

    async def post(self, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body of a POST of JSON."""
        async with self.open("POST", path, msgspec.json.encode(body)) as answer:
            return answer.status, await answer.read()

    async def _answer(self, message: bytes) -> Answer:
        """Nothing is sent twice: a request that fails has failed."""
        connection = await self._usable_connection()
        answer = Answer(connection)
        try:
            connection.writer.write(message)
            await connection.writer.drain()
            await answer.read_head()
        except OSError as error:
            await connection.close()
            raise HttpError(f"the connection was cut before an answer: {error}") from error
        except (HttpError, asyncio.CancelledError):
            await connection.close()
            raise
        return answer

    async def _usable_connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            await connection.close()
        return await self._connect()

    async def _connect(self) -> _Connection:
        try:
            async with asyncio.timeout(_CONNECT_S):
                return _Connection(
                    *await asyncio.open_connection(self._host, self._port, ssl=self._tls)
                )
        except (OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise HttpError(f"no connection to {self._host}:{self._port}: {why}") from error

    def _message(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        fields = {**self._headers, **headers}
        if body:
            fields |= {"content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{method} {self._base_path}{path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def _tls(*, insecure: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def is_ok(status: int) -> bool:
    """Whether a status is one of success."""
    return status in _OK
