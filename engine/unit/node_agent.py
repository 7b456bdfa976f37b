"""What `leadline serve` does on the nodes beside the head's: starts ranks for it, and ends them.

An agent outlives its head's engine: when that ends, the ranks are ended, and the agent asks the
next one for work.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from leadline.engine.config import ResolvedConfig
from leadline.engine.unit.curve import Context, UnitKey
from leadline.engine.unit.messages import (
    FromRank,
    Heartbeat,
    NodeHello,
    RankEnded,
    RankLaunch,
    StartRanks,
    StopRank,
    ToNode,
    node_identity,
)
from leadline.engine.unit.nodes import Nodes
from leadline.engine.unit.rank_children import RankChildren

logger = logging.getLogger(__name__)

_POLL_MS = 250
_POLLS_A_BEAT = 4
_HELLO_MS = 1000
_LOST_MS = 10_000
_END_S = 5.0


class NodeAgent:
    """One node's ranks, for one engine of the head after the other."""

    def __init__(self, config: ResolvedConfig, nodes: Nodes) -> None:
        """Nothing is started yet.

        Raises:
            ConfigError: the unit's key cannot be read.
        """
        self._config = config
        self._nodes = nodes
        self._key = UnitKey.read(nodes.key)
        self._node = config.node_rank
        self._is_over = threading.Event()

    def stop(self) -> None:
        """End the ranks and return from `run`, soon; for any thread and for signal handlers."""
        self._is_over.set()

    def run(self, on_stage: Callable[[str], None]) -> None:
        """Serve until somebody says `stop`.

        Args:
            on_stage: told what the node is busy with, in a phrase for people.
        """
        while not self._is_over.is_set():
            on_stage(f"waiting for the head at {self._nodes.commands}")
            with zmq.Context() as context:
                commands, reports = self._connect(context)
                try:
                    self._serve_one(commands, reports, on_stage)
                finally:
                    commands.disable_monitor()
                    context.destroy(linger=0)

    def _connect(self, context: Context) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        commands, reports = context.socket(zmq.DEALER), context.socket(zmq.PUSH)
        commands.routing_id = node_identity(self._node)
        for socket in (commands, reports):
            self._key.connect_with(socket)
            socket.immediate = True  # nothing is kept for a head that is not there
            socket.heartbeat_ivl, socket.heartbeat_timeout = 1000, _LOST_MS
        commands.connect(self._nodes.commands)
        reports.connect(self._nodes.reports)
        return commands, reports

    def _serve_one(
        self,
        commands: "zmq.Socket[bytes]",
        reports: "zmq.Socket[bytes]",
        on_stage: Callable[[str], None],
    ) -> None:
        """One engine of the head, from its call for ranks to its end."""
        monitor = commands.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        token = secrets.token_hex(8)
        hello = msgspec.msgpack.encode(NodeHello(self._node, self._nodes.ranks_each, token))
        start: StartRanks | None = None
        while start is None and not self._is_over.is_set():
            with contextlib.suppress(zmq.Again):
                commands.send(hello, zmq.NOBLOCK)
            start = self._next_start(commands)
        if start is None:
            return
        while monitor.poll(0):  # heads before this one
            recv_monitor_message(monitor)
        numbers = ", ".join(str(launch.rank) for launch in start.launches)
        on_stage(f"ranks {numbers} run here")
        children = RankChildren([self._own(launch) for launch in start.launches])
        life, told, polls = start.life.encode(), set[int](), 0
        try:
            while not self._is_over.is_set() and not monitor.poll(0):
                if commands.poll(_POLL_MS) and isinstance(_decode(commands), StopRank):
                    children.end(_END_S)
                    return
                polls += 1
                news: list[FromRank] = (
                    [Heartbeat(-self._node)] if polls % _POLLS_A_BEAT == 0 else []
                )
                for rank, how in children.find_ended().items():
                    if rank not in told:
                        told.add(rank)
                        news.append(RankEnded(rank, how))
                for report in news:
                    with contextlib.suppress(zmq.Again):
                        reports.send_multipart((life, msgspec.msgpack.encode(report)), zmq.NOBLOCK)
            if not self._is_over.is_set():
                logger.warning("the head's engine is gone; its ranks on this node end")
        finally:
            children.end(0)

    def _next_start(self, commands: "zmq.Socket[bytes]") -> StartRanks | None:
        if commands.poll(_HELLO_MS):
            message = _decode(commands)
            if isinstance(message, StartRanks):
                return message
        return None

    def _own(self, launch: RankLaunch) -> RankLaunch:
        """A launch with what is this node's own in it."""
        config = msgspec.json.decode(launch.config, type=ResolvedConfig)
        config = msgspec.structs.replace(
            config, model=self._config.model, num_threads=self._config.num_threads
        )
        return msgspec.structs.replace(
            launch,
            config=msgspec.json.encode(config).decode(),
            interface=self._nodes.interface,
            key=self._nodes.key,
        )


def _decode(commands: "zmq.Socket[bytes]") -> ToNode:
    message: ToNode = msgspec.msgpack.decode(commands.recv(), type=ToNode)
    return message
