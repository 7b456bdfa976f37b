"""The parent of an API worker, as the worker hears it and tells it how it fares."""

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec

from leadline.server.workers.messages import FromWorker, Launch, ToWorker

_CHUNK_BYTES = 2**16


class Parent:
    """The other end of a stream socket; when it closes, this process is ended at once."""

    def __init__(self, descriptor: int) -> None:
        """`descriptor`: of the socket."""
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._read()

    def launch(self) -> Launch:
        """The first thing that it says."""
        return msgspec.json.decode(next(self._lines), type=Launch)

    def listen(self, hear: Callable[[ToWorker], None]) -> None:
        """Let `hear` be called with all it says from now on, in the loop that runs here."""
        arguments = (hear, asyncio.get_running_loop())
        threading.Thread(target=self._listen, args=arguments, daemon=True).start()

    def tell(self, message: FromWorker) -> bool:
        """Tell it something; False if it does not listen at the moment. Never blocks."""
        try:
            self._socket.send(msgspec.json.encode(message) + b"\n", socket.MSG_DONTWAIT)
        except OSError:  # it is stopped; or it is gone, and so is this process soon
            return False
        return True

    def _read(self) -> Iterator[bytes]:
        rest = b""
        while chunk := self._socket.recv(_CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from lines

    def _listen(self, hear: Callable[[ToWorker], None], loop: asyncio.AbstractEventLoop) -> None:
        decoder = msgspec.json.Decoder(ToWorker)
        try:
            for line in self._lines:
                loop.call_soon_threadsafe(hear, decoder.decode(line))
        finally:
            os._exit(1)  # nothing here outlives the parent, whatever the loop is busy with
