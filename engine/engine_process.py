"""The engine process as its parent sees it: start it, notice its death, start it again."""

import asyncio
import contextlib
import logging
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from leadline.engine.errors import EngineDeadError
from leadline.engine.messages import (
    EngineState,
    EngineStatus,
    Failed,
    FromChild,
    Launch,
    Loading,
    Ready,
    Shutdown,
)
from leadline.engine.running_trace import read_trace

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
_NEWS_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often and how soon an engine that died is started again.

    Attributes:
        max_restarts: in a row, without a completed step in between; 0 for none at all.
        first_delay_s: before the second restart in a row; the first comes at once.
        max_delay_s: the delay doubles up to this.
    """

    max_restarts: int = 5
    first_delay_s: float = 0.5
    max_delay_s: float = 30.0

    def delay_s(self, num_restarts: int) -> float:
        """Seconds to wait after so many restarts in a row."""
        if num_restarts == 0:
            return 0.0
        return min(self.max_delay_s, self.first_delay_s * 2.0 ** (num_restarts - 1))


class EngineProcess:
    """Owns the engine process, one life after the other; for use within one event loop.

    Attributes:
        address: where clients learn how the engine fares (`client.EngineClient`).
    """

    def __init__(
        self,
        config: msgspec.Struct,
        *,
        builder: str = "leadline.engine.build:build_core",
        restarts: RestartPolicy | None = None,
        loading_timeout_s: float = 0.0,
    ) -> None:
        """Nothing is started yet.

        Args:
            config: given to the builder, as JSON.
            builder: `module:function` that makes the engine in its process.
            restarts: None for the usual ones.
            loading_timeout_s: a start that tells of nothing new for so long is ended; 0 for never.
        """
        self._config = msgspec.Raw(msgspec.json.encode(config))
        self._builder = builder
        self._restarts = restarts or RestartPolicy()
        self._loading_timeout_s = loading_timeout_s
        self._news_s = 0.0
        self._stage = "starting"
        self._directory = Path(tempfile.mkdtemp(prefix="leadline-"))  # mode 0700
        self.address = f"ipc://{self._directory}/status"
        self._context = zmq.asyncio.Context()
        self._publisher = self._context.socket(zmq.XPUB)
        self._publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._publisher.set_hwm(0)
        self._publisher.linger = 1000
        self._publisher.bind(self.address)
        self._status = EngineStatus(EngineState.STARTING, 1, self._engine_address(1))
        self._process: asyncio.subprocess.Process | None = None
        self._first_ready: asyncio.Future[Ready] | None = None
        self._ended: asyncio.Future[EngineDeadError] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._last_words = ""
        self._is_closing = False

    async def start(self, on_stage: Callable[[str], None] = lambda stage: None) -> Ready:
        """Start the process and wait until it can serve.

        Args:
            on_stage: told what the engine is busy with, in a few words for people.

        Raises:
            EngineDeadError: the engine did not start; the cause is in the message.
        """
        assert self._ended is None, "an engine process is started once"
        loop = asyncio.get_running_loop()
        self._first_ready, self._ended = loop.create_future(), loop.create_future()
        self._tasks = [
            asyncio.create_task(self._tell_newcomers()),
            asyncio.create_task(self._live(on_stage)),
        ]
        try:
            return await self._first_ready
        except BaseException:
            await self.shutdown(timeout_s=0)
            raise

    @property
    def process_id(self) -> int:
        """The engine's operating system process, the latest one."""
        assert self._process is not None, "the engine has not been started"
        return self._process.pid

    async def wait_ended(self) -> EngineDeadError:
        """Wait until the engine is gone for good; why it is."""
        assert self._ended is not None, "the engine has not been started"
        return await asyncio.shield(self._ended)

    def kill(self, cause: str) -> None:
        """End an engine that hangs, as if it had died of `cause`."""
        if self._process is not None and self._process.returncode is None:
            self._last_words = cause
            self._process.kill()

    async def shutdown(self, timeout_s: float = 5.0) -> None:
        """End the engine for good and release everything; open requests end with `abort`.

        An engine that is not gone after `timeout_s` seconds is killed.
        """
        self._is_closing = True
        process = self._process
        if process is not None and process.returncode is None:
            if timeout_s > 0 and self._status.state is EngineState.READY:
                with self._context.socket(zmq.DEALER) as link:
                    link.linger = 0
                    link.connect(self._status.address)
                    await link.send(msgspec.msgpack.encode(Shutdown()))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), timeout_s)
            if process.returncode is None:
                process.kill()
        if self._tasks:
            newcomers, life = self._tasks
            if process is None or self._status.state is EngineState.RESTARTING:
                life.cancel()
            await asyncio.gather(life, return_exceptions=True)
            self._end("the engine has been shut down")
            newcomers.cancel()
            await asyncio.gather(newcomers, return_exceptions=True)
            self._tasks = []
        self._publisher.close()
        self._context.term()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _live(self, on_stage: Callable[[str], None]) -> None:
        """One life after the other, until there are to be no more."""
        assert self._first_ready is not None
        num_restarts = 0
        while True:
            cause = await self._one_life(on_stage)
            trace = read_trace(self._trace_path)
            if self._is_closing:
                cause = "the engine has been shut down"
            if not self._first_ready.done():
                self._first_ready.set_exception(EngineDeadError(cause))
            num_restarts = 0 if trace.num_steps else num_restarts
            has_served = self._first_ready.exception() is None
            if self._is_closing or not has_served or num_restarts >= self._restarts.max_restarts:
                self._end(cause, trace.request_ids)
                return
            delay_s = self._restarts.delay_s(num_restarts)
            num_restarts += 1
            generation = self._status.generation
            logger.error("the engine has died and is started again: %s", cause)
            self._publish(
                EngineStatus(
                    EngineState.RESTARTING, generation, "", cause, suspect_ids=trace.request_ids
                )
            )
            await asyncio.sleep(delay_s)
            self._status.generation += 1

    async def _one_life(self, on_stage: Callable[[str], None]) -> str:
        """Start a process and wait for its end; returns the cause."""
        self._last_words = ""
        self._trace_path.unlink(missing_ok=True)
        ours, theirs = socket.socketpair()
        with theirs:
            # -P: the working directory must not hide installed packages.
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "leadline.engine.process", stdin=theirs.fileno()
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        launch = Launch(
            address=self._engine_address(self._status.generation),
            builder=self._builder,
            config=self._config,
            trace_path=str(self._trace_path),
        )
        writer.write(msgspec.json.encode(launch) + b"\n")
        listener = asyncio.create_task(self._listen(reader, on_stage))
        watcher = asyncio.create_task(self._end_hanging_start())
        try:
            exit_code = await process.wait()
            await asyncio.wait((listener,), timeout=_LAST_WORDS_S)
        except asyncio.CancelledError:
            process.kill()
            raise
        finally:
            listener.cancel()
            watcher.cancel()
            writer.close()
        unexpected = f"the engine process ended unexpectedly with exit code {exit_code}"
        return self._last_words or unexpected

    async def _listen(self, reader: asyncio.StreamReader, on_stage: Callable[[str], None]) -> None:
        decoder = msgspec.json.Decoder(FromChild)
        assert self._first_ready is not None
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                match message := decoder.decode(line):
                    case Loading(stage):
                        self._news_s = asyncio.get_running_loop().time()
                        self._stage = stage
                        on_stage(stage)
                    case Failed(text):
                        self._last_words = self._last_words or text
                    case Ready():
                        if not self._first_ready.done():
                            self._first_ready.set_result(message)
                        generation = self._status.generation
                        address = self._engine_address(generation)
                        self._publish(
                            EngineStatus(EngineState.READY, generation, address, ready=message)
                        )

    async def _end_hanging_start(self) -> None:
        """Kill an engine that is not ready and has told of nothing new for too long."""
        loop, timeout_s = asyncio.get_running_loop(), self._loading_timeout_s
        self._news_s, self._stage = loop.time(), "starting"
        was_late = False
        while timeout_s > 0 and self._status.state is not EngineState.READY:
            left_s = self._news_s + timeout_s - loop.time()
            if left_s <= 0 and was_late:
                self.kill(
                    f"it told of nothing new for {timeout_s:g} s (--loading-timeout) while it "
                    f"was busy with: {self._stage}"
                )
                return
            was_late = left_s <= 0  # perhaps this process was stopped: news would be here soon
            await asyncio.sleep(_NEWS_S if was_late else left_s)

    async def _tell_newcomers(self) -> None:
        while True:
            await self._publisher.recv()  # a subscription
            self._publish(self._status)

    def _end(self, cause: str, suspect_ids: list[str] | None = None) -> None:
        assert self._ended is not None
        if not self._ended.done():
            self._ended.set_result(EngineDeadError(cause))
            status = EngineStatus(EngineState.ENDED, self._status.generation, "", cause)
            status.suspect_ids = suspect_ids or []
            status.is_shut_down = self._is_closing
            self._publish(status)

    def _publish(self, status: EngineStatus) -> None:
        self._status = status
        self._publisher.send(msgspec.msgpack.encode(status), zmq.NOBLOCK)

    @property
    def _trace_path(self) -> Path:
        return self._directory / "running"

    def _engine_address(self, generation: int) -> str:
        return f"ipc://{self._directory}/engine-{generation}"
