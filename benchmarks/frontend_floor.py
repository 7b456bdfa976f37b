"""The limit of `benchmarks.frontend`: the same frames at the same pace, and nothing but writes."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.frontend_server import NUM_NUMBERS, ScriptConfig, times_of

_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
# As long as the server's own.
_FRAME = (
    b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk",'
    b'"created":1764079200,"model":"numbers","system_fingerprint":"fp_0123456789ab",'
    b'"service_tier":"default","choices":[{"index":0,"delta":{"content":"%s"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)


class _Asked(asyncio.Protocol):
    """Whoever asks gets every step's frame from then on."""

    def __init__(self, transports: list[asyncio.Transport]) -> None:
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Begin the answer."""
        self._transport.write(_HEAD)
        self._transports.append(self._transport)


async def _serve(config: ScriptConfig, on_port: Callable[[int], None]) -> None:
    transports: list[asyncio.Transport] = []
    loop = asyncio.get_running_loop()
    times = times_of(Path(config.times_path))
    server = await loop.create_server(lambda: _Asked(transports), "127.0.0.1", 0)
    on_port(server.sockets[0].getsockname()[1])
    due_s, step = time.monotonic(), 0
    while True:
        due_s = max(due_s + config.step_s, time.monotonic() - config.step_s)
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        number = step % NUM_NUMBERS
        step += 1
        times[number] = time.monotonic()
        frame = _FRAME % (b"%04d " % number * config.num_tokens)
        chunk = b"%x\r\n%b\r\n" % (len(frame), frame)
        for transport in transports:
            transport.write(chunk)


def run(config: ScriptConfig, on_port: Callable[[int], None]) -> None:
    """Serve until the process is ended; `on_port` gets the port."""
    uvloop.run(_serve(config, on_port))
