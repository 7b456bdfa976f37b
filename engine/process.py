"""The engine process: `python -m leadline.engine.process`, started by `EngineProcess`.

It reads a `Launch` from its standard input, builds the engine, and serves a ROUTER socket until it
is told to stop, until its parent is gone, or until the engine fails.
"""

import contextlib
import importlib
import logging
import math
import os
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import zmq

from leadline.engine.control import AbortRequests, Done, Order, Pause, Resume, Sleep, WakeUp
from leadline.engine.core import EngineCore
from leadline.engine.errors import ConfigError, RequestError
from leadline.engine.logs import LogSettings
from leadline.engine.messages import (
    Failed,
    Finish,
    FromChild,
    FromEngine,
    Hello,
    Launch,
    Loading,
    PrefixCacheReset,
    Ready,
    Refused,
    ResetPrefixCache,
    Shutdown,
    StepOutputs,
    Submit,
    TakeSurvey,
    ToEngine,
)
from leadline.engine.request import FinishReason, RequestOutput
from leadline.loader.errors import LoaderError

logger = logging.getLogger(__name__)

Builder = Callable[[bytes, Callable[[str], None]], tuple[EngineCore, Ready]]
"""Makes the engine from its config (JSON), telling the callable what it is busy with."""

_LINGER_MS = 1000
_PREPARING_MS = 2  # how long to sleep where nothing can run until a request has been prepared
_WAKING_MS = 20  # how long to sleep until the memory may be back
_STDIN = 0


class ClientLink:
    """The engine's end of the socket: knows the clients, and whose request is whose."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._clients: list[bytes] = []
        self._gone: set[bytes] = set()
        self._pausing: list[tuple[bytes, int, int]] = []
        self._waking: list[tuple[bytes, int]] = []
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

    def tell_paused(self, core: EngineCore) -> None:
        """Answer who waits for a pause, if the engine is paused or is not about to be any more."""
        is_paused = core.is_paused
        if not self._pausing or (core.is_holding and not is_paused):
            return
        pausing, self._pausing = self._pausing, []
        for client, ticket, sleep_level in pausing:
            num_bytes = core.sleep(sleep_level) if sleep_level and is_paused else 0
            self.deliver((), core)
            self.send(client, Done(ticket, is_paused, num_bytes=num_bytes))
        core.publish_events()

    def tell_awake(self, core: EngineCore) -> None:
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

    def deliver(self, outputs: Iterable[RequestOutput], core: EngineCore) -> None:
        """Send outputs to their requests' clients, and to every client how the engine fares."""
        by_client: defaultdict[bytes, list[RequestOutput]] = defaultdict(list)
        for output in outputs:
            by_client[self._owners[output.request_id]].append(output)
            if output.finish_reason is not None:
                del self._owners[output.request_id]
        stats = core.stats()
        quiet = self._encoder.encode(StepOutputs([], stats)) if len(self._clients) > 1 else b""
        for client in self._clients:
            has_news = client in by_client or not quiet
            self.send(client, StepOutputs(by_client[client], stats) if has_news else quiet)


def serve(core: EngineCore, link: ClientLink, ready: Ready) -> None:
    """Run the engine until somebody says `Shutdown`; every request has had its final output then.

    All messages that have arrived are handled before each step, so an abort never waits behind
    work. Without work the process sleeps on the socket.
    """
    while _handle_messages(core, link, ready):
        if finals := core.sweep():
            link.deliver(finals, core)
        was_idle = core.num_steps_in_flight == 0
        core.start_steps()
        if core.num_steps_in_flight:
            if was_idle:
                link.deliver((), core)  # how long the step should take
            link.deliver(core.complete_step(), core)
            core.publish_events()
        if orphan_ids := link.take_orphans():
            lost = [core.finish(request_id, FinishReason.ABORT) for request_id in orphan_ids]
            link.deliver((final for final in lost if final is not None), core)
    link.deliver(core.finish_all(FinishReason.ABORT), core)
    core.close()


def _handle_messages(core: EngineCore, link: ClientLink, ready: Ready) -> bool:
    """Handle what has arrived; if there is nothing to do, wait for it. False after a `Shutdown`."""
    while True:
        link.tell_paused(core)
        link.tell_awake(core)
        if not link.has_message(_patience_ms(core)):
            return True
        client, message = link.receive()
        match message:
            case Submit(request):
                try:
                    core.submit(request)
                    link.own(request.request_id, client)
                except RequestError as error:
                    link.send(client, Refused.of(request.request_id, error))
            case Finish(request_ids, reason):
                finals = [core.finish(request_id, reason) for request_id in request_ids]
                link.deliver((final for final in finals if final is not None), core)
            case ResetPrefixCache():
                link.send(client, PrefixCacheReset(core.reset_prefix_cache()))
                core.publish_events()
            case TakeSurvey():
                link.send(client, core.survey())
            case Pause() | Resume() | Sleep() | WakeUp() | AbortRequests():
                _obey(core, link, client, message)
            case Hello(was_paused, sleep_level):
                if was_paused:
                    core.stay_paused(sleep_level)
                link.send(client, ready)
                link.deliver((), core)
            case Shutdown():
                return False


def _obey(core: EngineCore, link: ClientLink, client: bytes, order: Order) -> None:
    """Carry out what an operator asks for."""
    match order:
        case Pause(ticket, mode):
            link.deliver(core.pause(mode), core)
            link.await_pause(client, ticket)
        case Resume(ticket) if core.sleep_level:
            refusal = "the engine sleeps; POST /wake_up ends that"
            link.send(client, Done(ticket, is_paused=True, refusal=refusal))
        case Sleep(ticket) if core.is_waking:
            link.send(client, Done(ticket, is_paused=True, refusal="the engine is waking up"))
        case Sleep(ticket, level, mode):
            link.deliver(core.pause(mode), core)
            link.await_pause(client, ticket, level)
        case WakeUp(ticket):
            core.start_waking()
            link.await_waking(client, ticket)
        case Resume(ticket):
            core.resume()
            link.tell_paused(core)
            link.deliver((), core)
            link.send(client, Done(ticket, is_paused=False))
        case AbortRequests(ticket, names):
            finals, aborted = core.abort(names)
            link.deliver(finals, core)
            link.send(client, Done(ticket, core.is_paused, aborted))


def _patience_ms(core: EngineCore) -> int | None:
    """How long to wait for a message before the next step."""
    if core.is_waking:
        return _WAKING_MS
    if not core.has_work():
        idle_s = core.idle_s()
        return None if idle_s is None else math.ceil(idle_s * 1000)
    return 0 if core.can_step() else _PREPARING_MS


def load_builder(path: str) -> Builder:
    """The function named by `module:function`."""
    module, _, name = path.partition(":")
    builder: Builder = getattr(importlib.import_module(module), name)
    return builder


def _read_launch() -> Launch:
    # Not through sys.stdin: a thread that waits in its buffer would block the interpreter's end.
    with open(_STDIN, "rb", buffering=0, closefd=False) as stdin:
        return msgspec.json.decode(stdin.readline(), type=Launch)


def _tell_parent(message: FromChild) -> None:
    with contextlib.suppress(OSError):  # it is gone, and so is this process soon
        os.write(_STDIN, msgspec.json.encode(message) + b"\n")


def _exit_with_parent() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 1):
            pass
    os._exit(1)  # the main thread may be deep in a step; nothing here outlives the process


def main() -> int:
    """Run the process; returns its exit status."""
    # Ctrl-C reaches the whole terminal group, and a supervisor may signal the whole service: the
    # parent drains first, then says Shutdown.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    LogSettings.of_parent().set_up()
    launch = _read_launch()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.set_hwm(0)
    socket.bind(launch.address)
    link = ClientLink(socket)
    try:
        builder = load_builder(launch.builder)
        core, ready = builder(
            bytes(launch.config), lambda stage: _tell_parent(Loading(stage=stage))
        )
        core.leave_trace(Path(launch.trace_path))
        _tell_parent(ready)
        serve(core, link, ready)
    except (ConfigError, LoaderError) as error:  # the user's fault: no traceback
        _tell_parent(Failed(message=str(error)))
        return 1
    except Exception as error:
        logger.exception("the engine failed")
        _tell_parent(Failed(message=f"{type(error).__name__}: {error}"))
        return 1
    finally:
        context.destroy(linger=_LINGER_MS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
