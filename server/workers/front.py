"""Requests are answered by several processes: `leadline serve --api-workers N`."""

import asyncio
import contextlib
import logging
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from leadline.engine.config import ResolvedConfig
from leadline.engine.progress import Progress
from leadline.server.config import ServerConfig
from leadline.server.doorway import Doorway
from leadline.server.front import FrontError
from leadline.server.health import StallLimits
from leadline.server.http_server import LAST_WORDS_S, make_http_server
from leadline.server.responses.store import ResponseStore
from leadline.server.server_info import ServerInfo
from leadline.server.workers.door import Door
from leadline.server.workers.messages import Drain, Launch, Others
from leadline.server.workers.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_ANSWER_S = 5.0  # for a worker to say that it drains; one that hangs does not hold the others up


class WorkersFront:
    """See `front.Front`; this process accepts connections, and owns what the workers share."""

    preparation = "API workers"

    def __init__(
        self,
        config: ServerConfig,
        resolved: ResolvedConfig,
        directory: str,
        engine_address: str,
        progress: Progress,
        *,
        stall_limits: StallLimits | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            config: of the HTTP side.
            resolved: of the engine.
            directory: of the model's files.
            engine_address: `EngineProcess.address`.
            progress: the engine's, as this process sees it; is told of the workers' work.
            stall_limits: from when on the engine counts as stuck; None for the usual ones.

        Raises:
            ConfigError: a certificate that cannot be used.
        """
        self._config = config
        self._progress = progress
        self._doorway = make_http_server(Doorway(), config)
        self._shared = Path(tempfile.mkdtemp(prefix="leadline-workers-"))  # mode 0700
        self._responses = _make_store(self._shared, config)
        metrics = self._shared / "metrics"
        metrics.mkdir()
        created_s = int(time.time())

        def launch(worker: WorkerProcess, connections_fd: int) -> Launch:
            return Launch(
                number=worker.number,
                name=worker.name,
                config=config,
                resolved=resolved,
                directory=directory,
                engine_address=engine_address,
                responses_directory=str(self._shared),
                created_s=created_s,
                connections_fd=connections_fd,
                stall_limits=stall_limits,
            )

        self._workers = [
            WorkerProcess(
                number,
                launch,
                environment={_METRICS_VARIABLE: str(metrics)},
                on_change=self._on_change,
                on_death=self._on_death,
                loading_timeout_s=config.loading_timeout_s,
            )
            for number in range(1, config.api_workers + 1)
        ]
        self._lives: list[asyncio.Task[str]] = []
        self._listener: socket.socket | None = None
        self._door: Door | None = None
        self._info: ServerInfo | None = None
        self._is_draining = self._is_abandoned = False
        self._news = asyncio.Event()

    def start(self, listener: socket.socket) -> None:
        """See `Front`."""
        self._listener = listener
        self._doorway.start(listener.dup())
        self._lives = [asyncio.create_task(worker.live()) for worker in self._workers]

    async def watch(self) -> NoReturn:
        """See `Front`."""
        lives = [asyncio.shield(life) for life in self._lives]
        done, _ = await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
        raise FrontError(done.pop().result())

    async def prepare(self) -> None:
        """See `Front`."""
        await self._until(lambda: all(worker.is_prepared for worker in self._workers))

    async def open(self, info: ServerInfo) -> None:
        """See `Front`."""
        assert self._listener is not None, "a front is started before it is opened"
        self._info = info
        await self._doorway.stop()
        if self._config.ssl_certfile is not None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._forward, signal.SIGHUP)
        self._door = Door(
            self._listener, self._workers, max_connections=self._config.limits.connections
        )
        for worker in self._workers:
            self._open(worker)
        self._door.open()

    async def drain(self) -> None:
        """See `Front`."""
        self._is_draining = True
        for worker in self._workers:
            worker.tell(Drain())
        await self._until(
            lambda: all(worker.report.is_draining for worker in self._workers if worker.is_open),
            _ANSWER_S,
        )

    @property
    def num_in_flight(self) -> int:
        """See `Front`."""
        return sum(worker.report.num_in_flight for worker in self._workers)

    async def wait_until_idle(self, timeout_s: float) -> None:
        """See `Front`."""
        await self._until(lambda: self.num_in_flight == 0, timeout_s)

    def abandon(self) -> None:
        """See `Front`."""
        self._is_abandoned = True

    async def stop(self) -> None:
        """See `Front`."""
        if self._door is None:
            self._doorway.force_exit = self._is_abandoned
            await self._doorway.stop()
        else:
            self._door.close()
        await asyncio.gather(*map(self._end, self._workers))
        for life in self._lives:
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)
        self._responses.close()
        shutil.rmtree(self._shared, ignore_errors=True)

    async def _end(self, worker: WorkerProcess) -> None:
        is_heard = worker.is_open and not self._is_abandoned
        await worker.end(timeout_s=2 * LAST_WORDS_S if is_heard else 0)

    def _open(self, worker: WorkerProcess) -> None:
        """Let a worker that is prepared answer requests."""
        assert self._info is not None, "workers are opened after the front"
        assert self._door is not None, "workers are opened after the front"
        if self._is_draining:
            worker.tell(Drain())
        worker.open(self._info)
        self._door.update()

    def _on_change(self, worker: WorkerProcess) -> None:
        if self._door is not None and worker.is_prepared and not worker.is_open:
            self._open(worker)
        if self._door is not None:
            self._door.update()
        self._share_progress()
        self._news.set()

    def _on_death(self, worker: WorkerProcess) -> None:
        if self._door is not None:
            self._door.update()
        self._share_progress()
        self._news.set()

    def _share_progress(self) -> None:
        """Let everybody know since when somebody else has had work for the engine."""
        since_s = {worker: worker.report.pending_since_s for worker in self._workers}
        self._progress.others_pending_since_s = _earliest(since_s.values())
        for worker in self._workers:
            others_s = _earliest(s for other, s in since_s.items() if other is not worker)
            worker.share(Others(others_s))

    def _forward(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.is_open:
                worker.send_signal(number)

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait until a condition holds, or for so many seconds; None for any number."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._news.clear()
                    await self._news.wait()


def _make_store(directory: Path, config: ServerConfig) -> ResponseStore:
    """The responses of all workers; the file is made by one process alone."""
    limits = config.limits
    store = ResponseStore(
        directory,
        max_responses=limits.stored_responses,
        max_bytes=limits.stored_response_bytes,
    )
    if store.is_enabled:
        store.open()
    return store


def _earliest(moments_s: Iterable[float | None]) -> float | None:
    return min((moment_s for moment_s in moments_s if moment_s is not None), default=None)
