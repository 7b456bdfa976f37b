"""The head's sockets to its ranks: commands go out, reports come in, silence is noticed."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import zmq

from leadline.engine.errors import ConfigError
from leadline.engine.unit.curve import UnitKey
from leadline.engine.unit.messages import (
    FromRank,
    Heartbeat,
    Hello,
    RankEnded,
    RankFailed,
    RankHello,
    ToNode,
    ToRank,
    identity,
    node_identity,
)

SILENCE_S = 10.0
"""A rank that has not been heard of for so long is taken for dead: it reports every second."""
_POLL_MS = 250
_LAST_WORDS_S = 0.5  # in which ranks that failed for want of another one do not speak for the unit
_LINGER_MS = 1000


class RankProcesses(Protocol):
    """The processes that the head has started (`rank_children.RankChildren`)."""

    def find_ended(self) -> dict[int, str]:
        """Ranks whose process has ended, each with how."""
        ...


class RankLink:
    """Commands are sent by one thread; reports are heard in another, which is the link's own.

    Attributes:
        commands, reports: addresses for the ranks.
    """

    def __init__(
        self,
        commands: str,
        reports: str,
        *,
        life: str,
        key: UnitKey | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """Bind the sockets.

        Args:
            commands: ZeroMQ address for them.
            reports: likewise.
            life: of the engine; what ranks of another one say is not heard.
            key: of a unit of several nodes.
            silence_s: a rank that is silent for so long has failed.
        """
        self._context = zmq.Context()
        self._guard = None if key is None else key.guard(self._context)
        self._commands = self._context.socket(zmq.ROUTER)
        self._commands.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._commands.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a node may come again
        self._reports = self._context.socket(zmq.PULL)
        for socket, address in ((self._commands, commands), (self._reports, reports)):
            socket.set_hwm(0)
            if key is not None:
                key.serve_with(socket)
            try:
                socket.bind(address)
            except zmq.ZMQError as error:
                self._end()
                raise ConfigError(f"cannot bind {address}: {error}; give another head") from error
        self.commands, self.reports = commands, reports
        self._life = life
        self._silence_s = silence_s
        self._encoder = msgspec.msgpack.Encoder()
        self._is_over = threading.Event()
        self._listener: threading.Thread | None = None

    def listen(
        self,
        processes: RankProcesses,
        on_report: Callable[[FromRank], None],
        on_failure: Callable[[str, bool], None],
    ) -> None:
        """Begin to hear.

        Args:
            processes: of the ranks.
            on_report: told everything but failures and heartbeats, in the link's thread.
            on_failure: told once why the unit cannot go on, and whether that is the user's fault.
        """
        self._listener = threading.Thread(
            target=self._listen,
            args=(processes, on_report, on_failure),
            daemon=True,
            name="leadline-ranks",
        )
        self._listener.start()

    def await_hello(self, timeout_ms: int) -> Hello | None:
        """The next rank or node that hears commands; None if there is none for so long."""
        if not self._commands.poll(timeout_ms):
            return None
        name, data = self._commands.recv_multipart()
        hello: Hello = msgspec.msgpack.decode(data, type=Hello)
        if isinstance(hello, RankHello) and name != identity(hello.rank, self._life):
            return None  # of an engine that is no more
        return hello

    def send(self, ranks: Sequence[int], command: ToRank) -> None:
        """Send to ranks that have said hello; nothing happens where one has gone."""
        data = self._encoder.encode(command)
        for rank in ranks:
            self._send(identity(rank, self._life), data)

    def send_node(self, node: int, command: ToNode) -> None:
        """Send to a node that has said hello."""
        self._send(node_identity(node), self._encoder.encode(command))

    def close(self) -> None:
        """Hear no more; what was sent goes out."""
        self._is_over.set()
        if self._listener is not None:
            self._listener.join()
        self._end()

    def _end(self) -> None:
        if self._guard is not None:
            self._guard.close()
        self._context.destroy(linger=_LINGER_MS)

    def _send(self, name: bytes, data: bytes) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._commands.send_multipart([name, data])

    def _listen(
        self,
        processes: RankProcesses,
        on_report: Callable[[FromRank], None],
        on_failure: Callable[[str, bool], None],
    ) -> None:
        decoder = msgspec.msgpack.Decoder(FromRank)
        heard_s: dict[int, float] = {}  # a process that starts is given its time
        failures: dict[int, RankFailed] = {}
        remote_ended: dict[int, str] = {}
        failed_s: float | None = None
        while not self._is_over.is_set():
            has_report = bool(self._reports.poll(_POLL_MS))
            while has_report:
                life, data = self._reports.recv_multipart()
                if life == self._life.encode():
                    report = decoder.decode(data)
                    heard_s[report.rank] = time.monotonic()
                    match report:
                        case RankFailed():
                            failures.setdefault(report.rank, report)
                        case RankEnded(rank, how):
                            remote_ended[rank] = how
                        case Heartbeat():
                            pass
                        case _:
                            on_report(report)
                has_report = bool(self._reports.poll(0))
            now_s = time.monotonic()
            ended = remote_ended | processes.find_ended()
            silent = [rank for rank, at_s in heard_s.items() if now_s - at_s > self._silence_s]
            if failed_s is None and (failures or ended or silent):
                failed_s = now_s
            if failed_s is not None and now_s - failed_s >= _LAST_WORDS_S:
                on_failure(*_cause(failures, ended, silent, self._silence_s))
                return


def _cause(
    failures: dict[int, RankFailed], ended: dict[int, str], silent: list[int], silence_s: float
) -> tuple[str, bool]:
    """Which of all that has gone wrong was first, most likely; and whether it is the user's."""
    own = [failure for failure in failures.values() if not failure.is_collective]
    if own:
        users = next((failure for failure in own if failure.is_users), None)
        if users is not None:
            return users.message, True
        return f"rank {own[0].rank} failed: {own[0].message}", False
    unexplained = {rank: how for rank, how in ended.items() if rank not in failures}
    if unexplained:
        rank, how = next(iter(unexplained.items()))
        return f"rank {rank} has died: {how}", False
    if silent:
        name = f"rank {silent[0]}" if silent[0] >= 0 else f"node {-silent[0]}"
        return f"{name} has not been heard of for {silence_s:g} s", False
    if failures:
        failure = next(iter(failures.values()))
        return f"rank {failure.rank} failed: {failure.message}", False
    rank, how = next(iter(ended.items()))
    return f"rank {rank} has died: {how}", False
