"""The engine's end of the socket: knows the clients, and whose request is whose."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec
import zmq

from leadline.engine.any_core import AnyCore
from leadline.engine.control import Done
from leadline.engine.errors import ConfigError
from leadline.engine.messages import FromEngine, Hello, StepOutputs, ToEngine
from leadline.engine.request import RequestOutput
from leadline.loader.errors import LoaderError


class ClientLink:
    """Sends each client what concerns it, and notices clients that have gone."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._clients: list[bytes] = []
        self._gone: set[bytes] = set()
        self._pausing: list[tuple[bytes, int, int]] = []
        self._waking: list[tuple[bytes, int]] = []
        self._told_activity = ""
        self._owners: dict[str, bytes] = {}
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._encoder = msgspec.msgpack.Encoder()

    def has_message(self, timeout_ms: int | None) -> bool:
        """Whether `receive` would return at once, after so long at most; None: without limit."""
        return bool(self._socket.poll(timeout_ms))

    def receive(self) -> tuple[bytes, ToEngine]:
        """The next message and the client that sent it; a new client is remembered."""
        client, data = self._socket.recv_multipart()
        message = self._decoder.decode(data)
        if isinstance(message, Hello):
            self._clients.append(client)
        return client, message

    def own(self, request_id: str, client: bytes) -> None:
        """Remember whom the outputs of an accepted request are for."""
        self._owners[request_id] = client

    def send(self, client: bytes, message: FromEngine | bytes) -> None:
        """Send to one client, encoded or not; one that has gone is remembered as such."""
        data = message if isinstance(message, bytes) else self._encoder.encode(message)
        try:
            self._socket.send_multipart([client, data])
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._gone.add(client)

    def await_pause(self, client: bytes, ticket: int, sleep_level: int = 0) -> None:
        """Remember who waits for the engine to be paused, and whether it is to sleep then."""
        self._pausing.append((client, ticket, sleep_level))

    def await_waking(self, client: bytes, ticket: int) -> None:
        """Remember who waits for the engine to be awake."""
        self._waking.append((client, ticket))

    def tell_paused(self, core: AnyCore) -> None:
        """Answer who waits for a pause, if the engine is paused or is not about to be any more."""
        is_paused = core.is_paused
        if not self._pausing or (core.is_holding and not is_paused):
            return
        pausing, self._pausing = self._pausing, []
        for client, ticket, sleep_level in pausing:
            num_bytes = self._put_to_sleep(core, sleep_level) if sleep_level and is_paused else 0
            self.deliver((), core)
            self.send(client, Done(ticket, is_paused, num_bytes=num_bytes))
        core.publish_events()

    def tell_activity(self, core: AnyCore) -> None:
        """Tell every client what the engine is busy with, if that has changed."""
        if (activity := core.activity) != self._told_activity:
            self._told_activity = activity
            self.deliver((), core)

    def _put_to_sleep(self, core: AnyCore, level: int) -> int:
        """Announced first, since messages wait meanwhile; returns the bytes that are given up."""
        core.announce("giving up memory")
        self.tell_activity(core)
        try:
            return core.sleep(level)
        finally:
            core.announce("")
            self.tell_activity(core)

    def tell_awake(self, core: AnyCore) -> None:
        """Answer who waits for the engine to be awake, if it is, or cannot be."""
        if not self._waking:
            return
        refusal = ""
        try:
            if not core.finish_waking():
                return
            core.resume()
        except (LoaderError, ConfigError, MemoryError) as error:
            refusal = f"the engine sleeps on: {error or type(error).__name__}"
        waking, self._waking = self._waking, []
        self.deliver((), core)
        for client, ticket in waking:
            self.send(client, Done(ticket, core.is_paused, refusal=refusal))

    def take_orphans(self) -> list[str]:
        """Requests whose clients have gone since the last call; their outputs go nowhere."""
        if not self._gone:
            return []
        gone, self._gone = self._gone, set()
        self._clients = [client for client in self._clients if client not in gone]
        return [request_id for request_id, owner in self._owners.items() if owner in gone]

    def deliver(self, outputs: Iterable[RequestOutput], core: AnyCore) -> None:
        """Send outputs to their requests' clients, and to every client how the engine fares."""
        by_client: defaultdict[bytes, list[RequestOutput]] = defaultdict(list)
        for output in outputs:
            by_client[self._owners[output.request_id]].append(output)
            if output.finish_reason is not None:
                del self._owners[output.request_id]
        stats = core.stats()
        nothing = self._encoder.encode(StepOutputs([], stats)) if len(self._clients) > 1 else None
        for client in self._clients:
            own = by_client.get(client, [])
            self.send(client, StepOutputs(own, stats) if own or nothing is None else nothing)
