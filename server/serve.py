"""`leadline serve`: from the two configs to a server that has ended."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time

import uvloop
from starlette.types import ASGIApp

from leadline.engine.client import EngineClient
from leadline.engine.config import EngineConfig, ResolvedConfig, resolve
from leadline.engine.config_lines import ConfigLine
from leadline.engine.engine_process import EngineProcess, RestartPolicy
from leadline.engine.errors import EngineError
from leadline.engine.grammar.checker import GrammarChecker
from leadline.engine.messages import Ready
from leadline.engine.platform_facts import cpu_facts
from leadline.loader.errors import LoaderError
from leadline.loader.hub import resolve_model
from leadline.server.access import Access
from leadline.server.app import create_app
from leadline.server.config import ServerConfig
from leadline.server.console import make_console
from leadline.server.doorway import Doorway
from leadline.server.engine_life import cause_of_death, start_engine
from leadline.server.garbage import settle
from leadline.server.health import StallLimits
from leadline.server.http_server import LAST_WORDS_S, make_http_server
from leadline.server.listener import bind, listen, url_of
from leadline.server.logs import set_up_logging
from leadline.server.make_state import check_limits_of, make_state, templates_of
from leadline.server.reporters import Reporter, reporters_of
from leadline.server.served_model import ServedModel, read_served_model
from leadline.server.server_info import rows_of, server_info_of
from leadline.server.start_times import StartTimes
from leadline.server.startup_screen import print_ready, stages
from leadline.server.state import ServerState
from leadline.server.stats_log import log_stats
from leadline.server.stop_signal import StopSignal

logger = logging.getLogger(__name__)

BUILDER = "leadline.engine.build:build_core"


def serve(
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    builder: str = BUILDER,
    begin_s: float | None = None,
    stall_limits: StallLimits | None = None,
) -> int:
    """Serve a model until a signal ends it.

    The first SIGINT or SIGTERM drains: new requests get a 503, running ones may finish. The second
    ends at once.

    Args:
        engine_config: what to load and how to run it.
        server_config: where to listen.
        builder: `module:function` that makes the engine in its process.
        begin_s: when start-up began (`time.monotonic()`); None for now.
        stall_limits: from when on the engine counts as stuck; None for the usual ones.

    Returns:
        The exit status: 0 after a drain; 1 if the start failed or the engine died, the cause and
        what to do being the last line on standard error; 128 + signal if one ended it early.
    """
    times = StartTimes(time.monotonic() if begin_s is None else begin_s)
    times.end("imports")
    try:
        server_config.check()
        set_up_logging(server_config)
        with (
            reporters_of(server_config) as reporters,
            bind(server_config.host, server_config.port) as listener,
        ):
            served = read_served_model(resolve_model(engine_config.model), server_config)
            if served.generation.not_honoured:
                settings = ", ".join(served.generation.not_honoured)
                logger.warning("the generation config asks for what is not supported: %s", settings)
            resolved, lines = resolve(
                engine_config, served.config, cpu_facts(), model_path=str(served.directory)
            )
            times.end("config and tokenizer")
            run = _Run(server_config, served, resolved, lines, listener, times)
            run.reporters, run.stall_limits = reporters, stall_limits
            return uvloop.run(run.run(builder))
    except (EngineError, LoaderError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:  # before the loop took the signal over
        return 128 + signal.SIGINT


class _Run:
    """One life of the server, from loading the engine to the end."""

    def __init__(
        self,
        config: ServerConfig,
        served: ServedModel,
        resolved: ResolvedConfig,
        lines: list[ConfigLine],
        listener: socket.socket,
        times: StartTimes,
    ) -> None:
        self.reporters: list[Reporter] = []
        self.stall_limits: StallLimits | None = None
        self._config = config
        self._served = served
        self._resolved = resolved
        self._lines = lines
        self._listener = listener
        self._times = times
        self._doorway = Doorway()
        self._server = make_http_server(self._doorway, config)
        self._console = make_console()

    async def run(self, builder: str) -> int:
        """Load, serve, drain; returns the exit status.

        Raises:
            EngineError: the start failed.
        """
        listen(self._listener)
        restarts = RestartPolicy(max_restarts=self._config.max_engine_restarts)
        engine = EngineProcess(
            self._resolved,
            builder=builder,
            restarts=restarts,
            loading_timeout_s=self._config.loading_timeout_s,
        )
        client = EngineClient(
            engine.address,
            resume=self._config.resume,
            max_unread_outputs=self._config.limits.unread_outputs,
        )
        stop = StopSignal()
        try:
            with stop:
                self._server.start(self._listener)
                try:
                    return await self._load_and_serve(engine, client, stop)
                except asyncio.CancelledError:
                    self._server.force_exit = True
                    raise
                finally:
                    await self._server.stop()
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            # The second signal: that answers are cancelled from here on is no news.
            logging.getLogger("uvicorn.error").disabled = True
            return stop.status
        finally:
            await client.close()
            await engine.shutdown(timeout_s=0)

    async def _load_and_serve(
        self, engine: EngineProcess, client: EngineClient, stop: StopSignal
    ) -> int:
        with stages(self._console) as on_stage:

            def show(stage: str) -> None:
                self._times.begin_stage(stage)
                on_stage(stage)

            ready = await stop.run_until(start_engine(engine, client, show))
        if ready is None:
            return stop.status
        self._times.end_stage()
        grammars = GrammarChecker(self._served.directory, check_limits_of(self._config.limits))
        templates = templates_of(self._served, self._config.limits)
        log = asyncio.create_task(log_stats(lambda: client.stats))
        try:
            if templates is not None:
                templates.start()
            await grammars.start()
            if templates is not None:
                await templates.check()
            state = make_state(
                self._resolved,
                self._served,
                client,
                grammars=grammars,
                templates=templates,
                deadline_s=self._config.deadline_s,
                limits=self._config.limits,
                is_strict=self._config.strict,
            )
            state.reporters += self.reporters
            state.info = server_info_of(
                self._config, self._lines, ready, str(self._served.directory), state.model_names
            )
            return await self._serve(state, engine, stop, ready)
        finally:
            log.cancel()
            await grammars.close()
            if templates is not None:
                await templates.close()

    async def _serve(
        self, state: ServerState, engine: EngineProcess, stop: StopSignal, ready: Ready
    ) -> int:
        self._times.end("checks of requests")
        state.info.start_up_s = self._times.parts_s
        self._doorway.open(self._app(state))
        settle()
        print_ready(
            self._console,
            url=url_of(self._listener, scheme=self._config.scheme),
            model_name=self._resolved.served_model_name,
            served=self._served,
            ready=ready,
            lines=self._lines,
            rows=[*rows_of(self._config), ("start-up", str(self._times))],
            started_in_s=sum(self._times.parts_s.values()),
            needs_key=bool(self._config.api_key),
        )
        cause = await stop.run_until(
            cause_of_death(engine, state.engine, self._config.engine_timeout_s)
        )
        if cause is None:
            await self._drain(state)
            await engine.shutdown()
        await _wait_until_idle(state, LAST_WORDS_S)
        return 0 if cause is None else _fail(f"the engine has ended: {cause}; start again")

    def _app(self, state: ServerState) -> ASGIApp:
        config = self._config
        access = Access.of(
            api=config.api_key, admin=config.admin_api_key, metrics=config.metrics_api_key
        )
        return create_app(state, access=access, stall_limits=self.stall_limits)

    async def _drain(self, state: ServerState) -> None:
        """Let running requests finish; those that do not are aborted by the engine's end."""
        state.draining = True
        timeout_s = self._config.drain_timeout_s
        if state.in_flight.count:
            self._console.print(
                f"Stopping: running requests ({state.in_flight.count}) have {timeout_s:g} s to "
                "finish; a second signal ends them at once.",
                soft_wrap=True,
            )
        await _wait_until_idle(state, timeout_s)
        if state.in_flight.count:
            logger.warning("requests that did not finish in time: %d", state.in_flight.count)


async def _wait_until_idle(state: ServerState, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await state.in_flight.wait_until_idle()


def _fail(message: str) -> int:
    sys.stderr.write(f"leadline serve: {message}\n")
    return 1
