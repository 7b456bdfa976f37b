"""Publishes events about cached pages on ZeroMQ, as vLLM does (`--kv-events-config`).

Each message has three frames: topic, sequence number (8 bytes, big-endian), and a `KVEventBatch` as
msgpack. A subscriber that has missed some asks the replay socket: it sends a sequence number, and
gets each message from there on that is still remembered (sequence number and batch), then an end
mark of sequence number -1.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec
import zmq

from leadline.engine.errors import ConfigError
from leadline.engine.kv_events import KVEventBatch, KVEventLog
from leadline.engine.kv_events_config import KVEventsConfig

_END = (-1).to_bytes(8, "big", signed=True)
_LINGER_MS = 500
_POLL_MS = 100


class KVEventPublisher:
    """Sends what a `KVEventLog` has collected."""

    def __init__(
        self,
        config: KVEventsConfig,
        log: KVEventLog,
        *,
        data_parallel_rank: int = 0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Bind the sockets.

        Raises:
            ConfigError: an address cannot be bound.
        """
        self._log = log
        self._topic = config.topic.encode()
        self._rank = data_parallel_rank
        self._now = now
        self._encode = msgspec.msgpack.Encoder().encode
        self._next_sequence = 0
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._lock = threading.Lock()  # the replay thread reads what was sent
        self._context = zmq.Context()
        self._is_closing = threading.Event()
        self._replayer: threading.Thread | None = None
        try:
            self._socket = self._bind(zmq.PUB, config.endpoint, config.hwm)
            if config.replay_endpoint is not None:
                router = self._bind(zmq.ROUTER, config.replay_endpoint, config.hwm)
                self._replayer = threading.Thread(
                    target=self._replay, args=(router,), name="kv-event-replay", daemon=True
                )
                self._replayer.start()
        except ConfigError:
            self._context.destroy(linger=0)
            raise

    def publish(self) -> None:
        """Send what has been collected since the last call, as one batch."""
        events = self._log.take()
        if not events:
            return
        batch = KVEventBatch(ts=self._now(), events=events, data_parallel_rank=self._rank)
        payload = self._encode(batch)
        with self._lock:
            sequence = self._next_sequence
            self._next_sequence += 1
            self._sent.append((sequence, payload))
        self._socket.send_multipart((self._topic, sequence.to_bytes(8, "big"), payload))

    def close(self) -> None:
        """Send no more; what was sent has half a second to leave."""
        self._is_closing.set()
        if self._replayer is not None:
            self._replayer.join()
        self._socket.close(linger=_LINGER_MS)
        self._context.term()

    def _bind(self, kind: int, address: str, hwm: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.set_hwm(hwm)
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            raise ConfigError(
                f"kv_events_config: cannot bind {address!r}: {error}; choose another address"
            ) from error
        return socket

    def _replay(self, router: "zmq.Socket[bytes]") -> None:
        """Answer subscribers that have missed messages, until the publisher closes."""
        while not self._is_closing.is_set():
            if router.poll(_POLL_MS):
                self._answer(router)
        router.close(linger=_LINGER_MS)

    def _answer(self, router: "zmq.Socket[bytes]") -> None:
        frames = router.recv_multipart()
        if len(frames) != 3:  # identity, empty, first sequence number that is wanted
            return
        client, first = frames[0], int.from_bytes(frames[2], "big")
        with self._lock:
            wanted = [(number, payload) for number, payload in self._sent if number >= first]
        for number, payload in wanted:
            router.send_multipart((client, b"", number.to_bytes(8, "big"), payload))
        router.send_multipart((client, b"", _END, b""))
