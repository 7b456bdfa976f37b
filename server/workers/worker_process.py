"""An API worker as its parent sees it: start it, notice its death, start it again."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping

import msgspec

from leadline.engine.engine_process import RestartPolicy
from leadline.server.server_info import ServerInfo
from leadline.server.workers.messages import (
    BEYOND_LIMIT,
    WITHIN_LIMIT,
    Failed,
    FromWorker,
    Launch,
    Open,
    Others,
    Prepared,
    Report,
    Starting,
    Stop,
    ToWorker,
)

logger = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
_MAX_LINE_BYTES = 2**20
_STEADY_S = 60.0  # after so long a life the next restart comes at once
_NUM_LATE = 3  # checks in a row: perhaps this process was stopped, and news will be here soon


class WorkerProcess:
    """Owns one worker, one life after the other; for use within one event loop.

    Attributes:
        number: from 1 on.
        num_lives: that have begun.
        stage: what it is busy with until it is prepared.
        is_prepared: it could answer requests.
        is_open: it has been told to.
        report: what it has told of itself last.
    """

    def __init__(
        self,
        number: int,
        launch: Callable[["WorkerProcess", int], Launch],
        *,
        environment: Mapping[str, str],
        on_change: Callable[["WorkerProcess"], None],
        on_death: Callable[["WorkerProcess"], None],
        restarts: RestartPolicy | None = None,
        silent_s: float = 5.0,
        hung_s: float = 60.0,
        loading_timeout_s: float = 0.0,
    ) -> None:
        """Nothing is started yet.

        Args:
            number: its own.
            launch: makes its first message, given the descriptor on which connections come.
            environment: added to this process's.
            on_change: called after each change of an attribute.
            on_death: called after each life.
            restarts: `max_restarts` bounds starts that fail, in a row; None for the usual ones.
            silent_s: where it has told of nothing for so long, it gets no new connections.
            hung_s: and is killed, after so long.
            loading_timeout_s: before it is prepared, it is killed after so long; 0 for never.
        """
        self.number = number
        self.num_lives = 0
        self._launch = launch
        self._environment = dict(environment)
        self._on_change = on_change
        self._on_death = on_death
        self._restarts = restarts or RestartPolicy()
        self._silent_s = silent_s
        self._hung_s = hung_s
        self._loading_timeout_s = loading_timeout_s
        self._process: asyncio.subprocess.Process | None = None
        self._is_ending = False
        self._reset()

    def _reset(self) -> None:
        self.is_prepared = self.is_open = False
        self.stage = "starting"
        self.report = Report()
        self._num_handed = 0
        self._heard_s = 0.0
        self._is_silent = False
        self._hang = ""
        self._shared: Others | None = None
        self._last_words: Failed | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._connections: socket.socket | None = None

    @property
    def process_id(self) -> int | None:
        """Of the process that runs; None without one."""
        is_running = self._process is not None and self._process.returncode is None
        return self._process.pid if is_running and self._process is not None else None

    @property
    def name(self) -> str:
        """Of its present life, or of the last one."""
        return f"{self.number}.{self.num_lives}"

    @property
    def takes_connections(self) -> bool:
        """Whether it is open, and not known to hang."""
        return self.is_open and not self._is_silent

    @property
    def num_connections(self) -> int:
        """Connections that were handed to it, and are not known to be gone."""
        return self._num_handed - self.report.num_closed

    async def live(self) -> str:
        """Start it, again and again; returns why it cannot be started any more."""
        loop, num_failures, num_restarts = asyncio.get_running_loop(), 0, 0
        while True:
            begin_s, was_prepared = loop.time(), False
            try:
                cause = await self._one_life()
            except OSError as error:  # no room for a process or its files, at the moment
                cause = f"its process could not be started: {error}"
            finally:
                was_prepared, last_words = self.is_prepared, self._last_words
                self._reset()
                self._on_death(self)
            if self._is_ending or (last_words is not None and last_words.is_engines):
                await loop.create_future()  # the server is about to end
            num_failures = 0 if was_prepared else num_failures + 1
            is_first = self.num_lives == num_failures == 1
            if last_words is not None and is_first:  # it would say the same again
                return last_words.message
            if num_failures > self._restarts.max_restarts:
                return (
                    f"API worker {self.number} could not be started {num_failures} times in a "
                    f"row: {cause}"
                )
            if loop.time() - begin_s > _STEADY_S:
                num_restarts = 0
            logger.error("API worker %d has died and is started again: %s", self.number, cause)
            await asyncio.sleep(self._restarts.delay_s(num_restarts))
            num_restarts += 1
            if self._is_ending:
                await loop.create_future()

    def open(self, info: ServerInfo) -> None:
        """Let it answer requests; it is prepared."""
        self._heard_s = asyncio.get_running_loop().time()
        self.tell(Open(info))
        self.is_open = True

    def tell(self, message: ToWorker) -> None:
        """Say something to it; without effect if it does not run."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(msgspec.json.encode(message) + b"\n")

    def share(self, message: Others) -> None:
        """Tell it of the others' work, if that has changed."""
        if self.is_open and message != self._shared:
            self._shared = message
            self.tell(message)

    def hand_over(self, connection: socket.socket, *, has_room: bool) -> bool:
        """Let it answer on a connection; False if it does not take any at the moment.

        Args:
            connection: stays the caller's to close.
            has_room: False to let it answer that there are too many.
        """
        if self._connections is None:
            return False
        mark = WITHIN_LIMIT if has_room else BEYOND_LIMIT
        try:
            socket.send_fds(self._connections, [mark], [connection.fileno()])
        except OSError:  # it hangs, or it is gone, which will be noticed
            return False
        self._num_handed += 1
        return True

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; without effect if it does not run."""
        if self.process_id is not None:
            os.kill(self.process_id, number)

    async def end(self, timeout_s: float) -> None:
        """Let it end for good; after `timeout_s` seconds it is killed."""
        self._is_ending = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if timeout_s > 0:
            self.tell(Stop())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), timeout_s)
        self.send_signal(signal.SIGKILL)
        await process.wait()

    async def _one_life(self) -> str:
        """Start a process and wait for its end; returns the cause."""
        with contextlib.ExitStack() as ours:
            with contextlib.ExitStack() as its:
                control, its_control = socket.socketpair()
                ours.enter_context(control)
                its.enter_context(its_control)
                connections, its_connections = socket.socketpair()
                ours.enter_context(connections)
                its.enter_context(its_connections)
                connections.setblocking(False)
                self.num_lives += 1
                launch = self._launch(self, its_connections.fileno())
                # -P: the working directory must not hide installed packages.
                self._process = process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "leadline.server.workers.worker"),
                    stdin=its_control.fileno(),
                    pass_fds=(its_connections.fileno(),),
                    env=os.environ | self._environment,
                )
            self._connections = connections
            exit_code = await self._until_end(process, control, launch)
        words = self._hang if self._last_words is None else self._last_words.message
        return words or f"its process ended unexpectedly with exit code {exit_code}"

    async def _until_end(
        self, process: asyncio.subprocess.Process, control: socket.socket, launch: Launch
    ) -> int:
        """Tell a process what to serve, and hear what it says; returns its exit code."""
        tasks: list[asyncio.Task[None]] = []
        try:
            reader, self._writer = await asyncio.open_unix_connection(
                sock=control, limit=_MAX_LINE_BYTES
            )
            self._writer.write(msgspec.json.encode(launch) + b"\n")
            self._heard_s = asyncio.get_running_loop().time()
            listener = asyncio.create_task(self._listen(reader))
            watches = self._watch_start(), self._watch()
            tasks += [listener, *map(asyncio.create_task, watches)]
            exit_code = await process.wait()
            await asyncio.wait((listener,), timeout=_LAST_WORDS_S)
            return exit_code
        except asyncio.CancelledError:
            self.send_signal(signal.SIGKILL)
            raise
        finally:
            for task in tasks:
                task.cancel()
            if self._writer is not None:
                self._writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.json.Decoder(FromWorker)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                self._heard_s, self._is_silent = asyncio.get_running_loop().time(), False
                match message := decoder.decode(line):
                    case Starting(stage):
                        self.stage = stage
                    case Prepared():
                        self.is_prepared = True
                    case Failed():
                        self._last_words = message
                    case Report():
                        self.report = message
                self._on_change(self)

    async def _watch_start(self) -> None:
        """End one that hangs before it is prepared."""
        num_late, timeout_s = 0, self._loading_timeout_s
        while not self.is_prepared:
            await asyncio.sleep(self._silent_s / 5)
            num_late = num_late + 1 if 0 < timeout_s < self._quiet_s else 0
            if num_late == _NUM_LATE:
                self._end_hang(
                    f"it told of nothing new for {timeout_s:g} s (--loading-timeout) while it was "
                    f"busy with: {self.stage}; it was killed"
                )

    @property
    def _quiet_s(self) -> float:
        return asyncio.get_running_loop().time() - self._heard_s

    def _end_hang(self, cause: str) -> None:
        self._hang = cause
        self.send_signal(signal.SIGKILL)

    async def _watch(self) -> None:
        """Notice that it hangs: an open worker tells of itself every second, if only that it is."""
        num_late = 0
        while True:
            await asyncio.sleep(self._silent_s / 5)
            num_late = num_late + 1 if self.is_open and self._quiet_s > self._silent_s else 0
            if num_late < _NUM_LATE:
                continue
            if not self._is_silent:
                self._is_silent = True
                logger.warning("API worker %d tells of nothing; it gets no more", self.number)
                self._on_change(self)
            if self._quiet_s > self._hung_s:
                self._end_hang(f"it told of nothing for {self._hung_s:g} s, and was killed")
                return
