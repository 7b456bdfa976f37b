"""An API worker: `python -m leadline.server.workers.worker`, started by `WorkerProcess`.

It reads a `Launch` from its standard input, a socket on which it also tells how it fares, attaches
to the engine, and answers requests on the connections that its parent hands over. It ends when it
is told to, or at once when its parent is gone.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path

import uvloop

from leadline.engine.client import EngineClient
from leadline.engine.errors import EngineDeadError, EngineError
from leadline.loader.errors import LoaderError
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.garbage import settle
from leadline.server.http_server import HttpServer, make_http_server
from leadline.server.logs import set_up_logging
from leadline.server.make_state import Place, prepared_state
from leadline.server.reporters import Reporter, reporters_of
from leadline.server.served_model import read_served_model
from leadline.server.server_info import ServerInfo
from leadline.server.state import ServerState
from leadline.server.workers.handed_connections import HandedConnections
from leadline.server.workers.messages import (
    BEAT_S,
    Drain,
    Failed,
    Launch,
    Open,
    Others,
    Prepared,
    Report,
    Starting,
    Stop,
    ToWorker,
)
from leadline.server.workers.parent import Parent

logger = logging.getLogger("leadline.server.workers.worker")  # also where this is the program

_STDIN = 0
_LOOK_S = 0.05


class Worker:
    """Answers requests from its start to its end; for use within one event loop."""

    def __init__(self, parent: Parent, launch: Launch, reporters: list[Reporter]) -> None:
        self._parent = parent
        self._launch = launch
        self._reporters = reporters
        self._info: asyncio.Future[ServerInfo] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._is_draining = False
        self._state: ServerState | None = None
        self._connections: HandedConnections | None = None
        self._told, self._told_s = Report(), 0.0
        config = launch.config
        self._client = EngineClient(
            launch.engine_address,
            resume=config.resume,
            max_unread_outputs=config.limits.unread_outputs,
        )

    def hear(self, message: ToWorker) -> None:
        """The parent has said something."""
        match message:
            case Open(info):
                if not self._info.done():
                    self._info.set_result(info)
            case Others(pending_since_s):
                self._client.progress.others_pending_since_s = pending_since_s
            case Drain():
                self._is_draining = True
                if self._state is not None:
                    self._state.draining = True
                self._report()
            case Stop():
                self._stop.set()

    async def run(self) -> None:
        """Get ready, answer requests, and end when told to.

        Raises:
            EngineError, LoaderError, OSError: it cannot serve.
        """
        launch = self._launch
        self._parent.tell(Starting("reading the tokenizer"))
        served = read_served_model(Path(launch.directory), launch.config)
        place = Place(
            name=launch.name,
            created_s=launch.created_s,
            responses_directory=Path(launch.responses_directory),
        )
        try:
            await self._wait_for_engine()
            self._parent.tell(Starting("starting what checks requests"))
            async with prepared_state(
                launch.config, launch.resolved, served, self._client, place
            ) as state:
                state.reporters += self._reporters
                self._state = state
                access = Access.of_config(launch.config)
                app = create_app(state, access=access, stall_limits=launch.stall_limits)
                await self._answer(make_http_server(app, launch.config))
                state.responses.close()
        finally:
            await self._client.close()

    async def _wait_for_engine(self) -> None:
        """It loads for as long as it loads; the parent is to hear that this process is well."""
        attached = asyncio.create_task(self._client.attach())
        while not attached.done():
            self._parent.tell(Starting("waiting for the engine"))
            await asyncio.wait((attached,), timeout=BEAT_S)
        await attached

    async def _answer(self, server: HttpServer) -> None:
        """Answer requests until it is time to end."""
        assert self._state is not None, "requests are answered from a state"
        server.start()
        self._parent.tell(Prepared())
        self._state.info = await self._info
        self._state.draining = self._is_draining
        settle()
        with HandedConnections(self._launch.connections_fd, server, self._report) as connections:
            self._connections = connections
            logger.info("API worker %d answers (process %d)", self._launch.number, os.getpid())
            while not self._stop.is_set():
                self._report()
                self._state.metrics.requests.flush()  # another worker may be asked for all
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), _LOOK_S)
        await server.stop()

    def _report(self) -> None:
        """Tell the parent what has changed."""
        report = Report(
            num_closed=0 if self._connections is None else self._connections.num_closed,
            pending_since_s=self._client.progress.pending_since_s,
            num_in_flight=0 if self._state is None else self._state.in_flight.count,
            is_draining=self._is_draining,
        )
        now_s = time.monotonic()
        is_news = report != self._told or now_s - self._told_s >= BEAT_S
        if is_news and self._parent.tell(report):
            self._told, self._told_s = report, now_s


async def _run(parent: Parent, launch: Launch, reporters: list[Reporter]) -> None:
    worker = Worker(parent, launch, reporters)
    parent.listen(worker.hear)
    await worker.run()


def main() -> int:
    """Run the process; returns its exit status."""
    # Signals reach the whole terminal group, or the whole service: the parent drains first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = Parent(_STDIN)
    launch = parent.launch()
    set_up_logging(launch.config, worker=launch.number)
    try:
        with reporters_of(launch.config) as reporters:
            uvloop.run(_run(parent, launch, reporters))
    except EngineDeadError as error:
        parent.tell(Failed(str(error), is_engines=True))
        return 1
    except (EngineError, LoaderError, OSError) as error:  # the user's fault: no traceback
        parent.tell(Failed(str(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
