"""Server-sent events: a response that ends with its client, and never ends cleanly on a failure."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from leadline.server.body_writer import BodyWriter, find
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import ApiError

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_LINGER_S = 0.1  # a browser drops what it has not read yet of a stream that is cut
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


def error_frame(error: ApiError) -> bytes:
    """The event that tells of a failure after the stream has begun."""
    return b"data: " + error.body() + b"\n\n"


class EventStream:
    """An ASGI response that sends frames as they come.

    The status is sent with the first frame, so that a refusal is an ordinary error response. Where
    nothing has come for `keep_alive_s` seconds, a frame is sent that clients skip. A failure
    after that is an error event; then the connection is cut, because clients take a clean end for
    success. The frames are closed when the client leaves.
    """

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        headers: Mapping[str, str],
        keep_alive_s: float,
        keep_alive: bytes = _KEEP_ALIVE,
        on_error: Callable[[ApiError], bytes] = error_frame,
        offer_writer: Callable[[BodyWriter], None] | None = None,
    ) -> None:
        """Send these frames.

        Args:
            frames: the events.
            headers: sent beside those of every event stream.
            keep_alive_s: see above.
            keep_alive: the frame that clients skip.
            on_error: what is sent of a failure.
            offer_writer: is given what frames may also be written to, while `frames` waits for the
                next one, once the first has been sent.
        """
        self._frames = frames
        self._headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in {**_HEADERS, **headers}.items()
        ]
        self._keep_alive_s = keep_alive_s
        self._keep_alive_frame = keep_alive
        self._on_error = on_error
        self._offer_writer = offer_writer
        self._is_open = False
        self._num_sent = 0
        self._lock = asyncio.Lock()  # the keep-alive timer writes too
        self._writer: BodyWriter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames.

        Raises:
            ApiError: before the first frame.
            ClientDisconnectedError: the client has left.
        """
        self._writer = find(scope)
        if self._writer is not None and self._offer_writer is not None:
            self._offer_writer(self._writer)
        await run_until_disconnect(receive, self._send_frames(send))

    async def _send_frames(self, send: Send) -> None:
        timer = asyncio.create_task(self._keep_alive(send))
        try:
            async with aclosing(self._frames) as frames:
                async for frame in frames:
                    self._num_sent += 1
                    await self._write(send, frame)
        except ApiError as error:
            if not self._is_open:
                raise
            await self._write(send, self._on_error(error))
            await asyncio.sleep(_LINGER_S)
            return  # the body has no end: the HTTP server cuts the connection
        finally:
            timer.cancel()
        if not self._is_open:  # there was nothing to tell
            await self._write(send, b"")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            num_before = self._num_frames
            await asyncio.sleep(self._keep_alive_s)
            if self._num_frames == num_before:
                await self._write(send, self._keep_alive_frame)

    @property
    def _num_frames(self) -> int:
        """Sent so far, by whatever way; some are counted twice."""
        return self._num_sent + (0 if self._writer is None else self._writer.num_parts)

    async def _write(self, send: Send, frame: bytes) -> None:
        if self._is_open and self._writer is not None and self._writer.is_usable:
            await self._writer.write(frame)
            return
        async with self._lock:
            if not self._is_open:
                await send({"type": "http.response.start", "status": 200, "headers": self._headers})
                self._is_open = True
            await send({"type": "http.response.body", "body": frame, "more_body": True})
