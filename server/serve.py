"""`leadline serve`: from the two configs to a server that has ended."""

import asyncio
import logging
import signal
import socket
import sys
import time
from dataclasses import replace

import uvloop

from leadline.engine.client import EngineClient
from leadline.engine.config import EngineConfig, ResolvedConfig, resolve
from leadline.engine.config_lines import ConfigLine
from leadline.engine.engine_process import EngineProcess, RestartPolicy
from leadline.engine.errors import EngineError
from leadline.engine.messages import Ready
from leadline.engine.platform_facts import cpu_facts
from leadline.loader.errors import LoaderError
from leadline.loader.hub import resolve_model
from leadline.server.config import ServerConfig
from leadline.server.console import make_console
from leadline.server.engine_life import cause_of_death, start_engine
from leadline.server.front import Front, FrontError, unless_failed
from leadline.server.health import StallLimits
from leadline.server.http_server import LAST_WORDS_S
from leadline.server.listener import bind, listen, url_of
from leadline.server.logs import set_up_logging
from leadline.server.node import run_node
from leadline.server.own_front import OwnFront
from leadline.server.reporters import Reporter, reporters_of
from leadline.server.served_model import ServedModel, read_served_model
from leadline.server.server_info import rows_of, server_info_of
from leadline.server.start_times import StartTimes
from leadline.server.startup_screen import print_ready, stages
from leadline.server.stats_log import log_stats
from leadline.server.stop_signal import StopSignal
from leadline.server.workers.front import WorkersFront

logger = logging.getLogger(__name__)


def serve(
    engine_config: EngineConfig,
    server_config: ServerConfig,
    *,
    builder: str | None = None,
    begin_s: float | None = None,
    stall_limits: StallLimits | None = None,
) -> int:
    """Serve a model until a signal ends it.

    The first SIGINT or SIGTERM drains: new requests get a 503, running ones may finish. The second
    ends at once.

    Args:
        engine_config: what to load and how to run it.
        server_config: where to listen.
        builder: `module:function` that makes the engine in its process; None: what the config
            calls for.
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
            if resolved.node_rank:
                return run_node(resolved)
            times.end("config and tokenizer")
            run = _Run(server_config, served, resolved, lines, listener, times)
            run.reporters = reporters
            run.stall_limits = replace(
                stall_limits or StallLimits(), activity_s=server_config.loading_timeout_s
            )
            return uvloop.run(run.run(builder or resolved.builder))
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
        self._console = make_console(is_lasting=True)

    async def run(self, builder: str) -> int:
        """Load, serve, drain; returns the exit status.

        Raises:
            EngineError: the start failed.
        """
        listen(self._listener)
        engine = EngineProcess(
            self._resolved,
            builder=builder,
            restarts=RestartPolicy(max_restarts=self._config.max_engine_restarts),
            loading_timeout_s=self._config.loading_timeout_s,
        )
        client = EngineClient(
            engine.address,
            resume=self._config.resume,
            max_unread_outputs=self._config.limits.unread_outputs,
        )
        stop = StopSignal()
        try:
            front = self._front(engine, client)
            with stop:
                front.start(self._listener)
                try:
                    return await self._load_and_serve(front, engine, client, stop)
                except asyncio.CancelledError:
                    front.abandon()
                    raise
                finally:
                    await front.stop()
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            # The second signal: that answers are cancelled from here on is no news.
            logging.getLogger("uvicorn.error").disabled = True
            return stop.status
        finally:
            await client.close()
            await engine.shutdown(timeout_s=0)

    def _front(self, engine: EngineProcess, client: EngineClient) -> Front:
        if self._config.api_workers > 1:
            return WorkersFront(
                self._config,
                self._resolved,
                str(self._served.directory),
                engine.address,
                client.progress,
                stall_limits=self.stall_limits,
            )
        return OwnFront(
            self._config,
            self._resolved,
            self._served,
            client,
            reporters=self.reporters,
            stall_limits=self.stall_limits,
        )

    async def _load_and_serve(
        self, front: Front, engine: EngineProcess, client: EngineClient, stop: StopSignal
    ) -> int:
        with stages(self._console) as on_stage:

            def show(stage: str) -> None:
                self._times.begin_stage(stage)
                on_stage(stage)

            start = unless_failed(front, start_engine(engine, client, show))
            ready = await stop.run_until(start)
        if ready is None:
            return stop.status
        self._times.end_stage()
        log = asyncio.create_task(log_stats(lambda: client.stats))
        try:
            if not await stop.run_until(unless_failed(front, _prepared(front))):
                return stop.status
            await self._open(front, ready)
            return await self._serve(front, engine, client, stop)
        finally:
            log.cancel()

    async def _open(self, front: Front, ready: Ready) -> None:
        """Let requests in, and say so."""
        self._times.end(front.preparation)
        directory = str(self._served.directory)
        names = (self._resolved.served_model_name, *self._resolved.other_model_names)
        info = server_info_of(self._config, self._lines, ready, directory, names)
        info.start_up_s = self._times.parts_s
        await front.open(info)
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

    async def _serve(
        self, front: Front, engine: EngineProcess, client: EngineClient, stop: StopSignal
    ) -> int:
        """Wait for the end, whatever brings it, and let what runs end well."""
        death = cause_of_death(
            engine,
            client,
            timeout_s=self._config.engine_timeout_s,
            loading_timeout_s=self._config.loading_timeout_s,
        )
        failure: str | None = None
        try:
            cause = await stop.run_until(unless_failed(front, death))
        except FrontError as error:
            cause, failure = None, str(error)
        if cause is None:
            await self._drain(front)
            await engine.shutdown()
        else:
            failure = f"the engine has ended: {cause}; start again"
        await front.wait_until_idle(LAST_WORDS_S)
        return 0 if failure is None else _fail(failure)

    async def _drain(self, front: Front) -> None:
        """Let running requests finish; those that do not are aborted by the engine's end."""
        await front.drain()
        timeout_s = self._config.drain_timeout_s
        if front.num_in_flight:
            self._console.print(
                f"Stopping: running requests ({front.num_in_flight}) have {timeout_s:g} s to "
                "finish; a second signal ends them at once.",
                soft_wrap=True,
            )
        await front.wait_until_idle(timeout_s)
        if front.num_in_flight:
            logger.warning("requests that did not finish in time: %d", front.num_in_flight)


async def _prepared(front: Front) -> bool:
    await front.prepare()
    return True


def _fail(message: str) -> int:
    sys.stderr.write(f"leadline serve: {message}\n")
    return 1
