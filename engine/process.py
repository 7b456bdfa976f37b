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
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from leadline.engine.any_core import AnyCore
from leadline.engine.client_link import ClientLink
from leadline.engine.control import AbortRequests, Done, Order, Pause, Resume, Sleep, WakeUp
from leadline.engine.errors import ConfigError, EngineDeadError, RequestError
from leadline.engine.logs import LogSettings
from leadline.engine.messages import (
    Failed,
    Finish,
    FromChild,
    Hello,
    Launch,
    Loading,
    PrefixCacheReset,
    Ready,
    Refused,
    ResetPrefixCache,
    Shutdown,
    Submit,
    TakeSurvey,
)
from leadline.engine.request import FinishReason
from leadline.loader.errors import LoaderError

logger = logging.getLogger(__name__)

Builder = Callable[[bytes, Callable[[str], None]], tuple[AnyCore, Ready]]
"""Makes the engine from its config (JSON), telling the callable what it is busy with."""

_LINGER_MS = 1000
_PREPARING_MS = 2  # how long to sleep where nothing can run until a request has been prepared
_WAKING_MS = 20  # how long to sleep until the memory may be back
_STDIN = 0


def serve(core: AnyCore, link: ClientLink, ready: Ready) -> None:
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


def _handle_messages(core: AnyCore, link: ClientLink, ready: Ready) -> bool:
    """Handle what has arrived; if there is nothing to do, wait for it. False after a `Shutdown`."""
    while True:
        link.tell_paused(core)
        link.tell_awake(core)
        link.tell_activity(core)
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


def _obey(core: AnyCore, link: ClientLink, client: bytes, order: Order) -> None:
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


def _patience_ms(core: AnyCore) -> int | None:
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
    tempfile.tempdir = str(Path(launch.trace_path).parent)  # which the parent removes
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
    except (ConfigError, LoaderError, EngineDeadError) as error:  # the user's fault: no traceback
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
