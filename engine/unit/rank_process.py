"""A rank of a unit: `python -m leadline.engine.unit.rank_process`, started by the unit's head.

It reads a `RankLaunch` from its standard input, loads its share of the model, and computes the
steps that it is told until it is told to stop, or until its standard input closes.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import msgspec
import torch
import torch.distributed as dist
import zmq
from torch._C._distributed_c10d import FileStore, Store, TCPStore  # where their types are

from leadline.engine.build import load_model, make_runner, memory_lines, num_drafts_of
from leadline.engine.config import ResolvedConfig
from leadline.engine.errors import ConfigError, RequestError
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.logs import LogSettings
from leadline.engine.parallel.process_group import make_context
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.unit.curve import UnitKey
from leadline.engine.unit.messages import (
    Answer,
    FromRank,
    Heartbeat,
    PrepareGrammar,
    RankFailed,
    RankHello,
    RankLaunch,
    RankLoading,
    RankReady,
    RunStep,
    SleepRank,
    StepDone,
    StopRank,
    TakeExpertLoad,
    ToRank,
    WakeRank,
    identity,
)
from leadline.engine.worker.worker import Worker
from leadline.loader.errors import LoaderError

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
_LINGER_MS = 1000
_STDIN = 0


class Reporter:
    """Tells the head; for any thread."""

    def __init__(self, socket: "zmq.Socket[bytes]", launch: RankLaunch) -> None:
        """`socket`: not connected yet."""
        self._rank = launch.rank
        self._life = launch.life.encode()
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._socket = socket
        self._socket.set_hwm(0)
        self._socket.connect(launch.reports)
        self._is_over = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name="leadline-heartbeat").start()

    def tell(self, message: FromRank) -> None:
        """Send a message."""
        with self._lock:
            self._socket.send_multipart((self._life, self._encoder.encode(message)))

    def close(self) -> None:
        """No more heartbeats; what was told goes out."""
        self._is_over.set()
        with self._lock:
            self._socket.close(linger=_LINGER_MS)

    def _beat(self) -> None:
        while not self._is_over.wait(HEARTBEAT_S):
            with contextlib.suppress(zmq.ZMQError):  # closed meanwhile
                self.tell(Heartbeat(self._rank))


class Rank:
    """The commands of the head, carried out one after the other."""

    def __init__(self, launch: RankLaunch, reporter: Reporter) -> None:
        """Join the groups and load.

        Raises:
            LoaderError, ConfigError: see `build.load_model`.
        """
        config = msgspec.json.decode(launch.config, type=ResolvedConfig)
        torch.set_num_threads(config.num_threads)
        self._reporter = reporter
        self._rank = launch.rank
        self._tell_stage("waiting for the other ranks")
        parallel = make_context(
            config.layout,
            launch.rank,
            _open_store(launch.store, launch.rank, config.layout.num_ranks),
            device=config.device,
            ordered=config.batch_invariant,
            interface=launch.interface,
        )
        rank = RankContext(
            config.layout,
            launch.rank,
            parallel,
            num_redundant_experts=config.num_redundant_experts,
            num_nodes=config.nnodes,
        )
        self._leads = config.layout.tp_rank(launch.rank) == 0
        loaded = load_model(config, self._tell_stage, rank=rank)
        self._tell_stage("allocating the latent cache")
        self._grammars = GrammarStore(Path(config.model))
        runner = make_runner(config, loaded, self._grammars)
        self._worker = Worker(
            loaded,
            runner,
            lambda: load_model(config, self._tell_stage, rank=rank),
            lambda model: make_runner(config, model, self._grammars),
        )
        self.ready = RankReady(
            self._rank,
            memory_lines(config, loaded, runner),
            loaded.config.vocab_size,
            num_drafts_of(config, loaded),
            self._worker.num_bytes,
        )

    def obey(self, command: ToRank) -> bool:
        """Carry out a command; False after the last one."""
        match command:
            case RunStep(plan):
                output = self._worker.run(plan)
                if self._leads:
                    self._reporter.tell(StepDone(self._rank, output))
            case PrepareGrammar(ticket, grammar):
                compiled = self._grammars.compile(grammar)
                compiled.add_done_callback(lambda future: self._tell_compiled(ticket, future))
            case TakeExpertLoad(ticket):
                load = self._worker.expert_load()
                self._reporter.tell(Answer(rank=self._rank, ticket=ticket, expert_load=load))
            case SleepRank(ticket, level):
                self._worker.sleep(level)
                self._answer(ticket)
            case WakeRank(ticket):
                try:
                    self._worker.wake_up()
                    self._answer(ticket)
                except (LoaderError, ConfigError, MemoryError) as error:
                    self._answer(ticket, str(error) or type(error).__name__)
            case StopRank():
                self._grammars.close()
                return False
        return True

    def _answer(self, ticket: int, error: str = "") -> None:
        """About memory."""
        num_bytes = self._worker.num_bytes
        self._reporter.tell(
            Answer(rank=self._rank, ticket=ticket, error=error, num_bytes=num_bytes)
        )

    def _tell_compiled(self, ticket: int, compiled: Future[None]) -> None:
        failure = compiled.exception()
        error = "" if failure is None else str(failure)
        if failure is not None and not isinstance(failure, RequestError):
            logger.error("a grammar was not compiled: %s", failure)
        self._reporter.tell(
            Answer(rank=self._rank, ticket=ticket, error=error, grammars=self._grammars.counts())
        )

    def _tell_stage(self, stage: str) -> None:
        self._reporter.tell(RankLoading(self._rank, stage))


def _open_store(address: str, rank: int, num_ranks: int) -> Store:
    kind, _, place = address.partition(":")
    if kind == "file":
        return FileStore(place, num_ranks)
    host, _, port = place.rpartition(":")
    return TCPStore(host, int(port), num_ranks, is_master=rank == 0, wait_for_workers=False)


def _read_launch() -> RankLaunch:
    # Not through sys.stdin: a thread that waits in its buffer would block the interpreter's end.
    with open(_STDIN, "rb", buffering=0, closefd=False) as stdin:
        return msgspec.json.decode(stdin.readline(), type=RankLaunch)


def _exit_with_head() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 1):
            pass
    os._exit(1)  # the main thread may wait for ranks that are gone


def _serve(launch: RankLaunch, reporter: Reporter, commands: "zmq.Socket[bytes]") -> None:
    decoder = msgspec.msgpack.Decoder(ToRank)
    rank = Rank(launch, reporter)
    commands.send(msgspec.msgpack.encode(RankHello(launch.rank)))
    reporter.tell(rank.ready)
    while rank.obey(decoder.decode(commands.recv())):
        pass


def main() -> int:
    """Run the process; returns its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends the unit when it is drained
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    LogSettings.of_parent().set_up()
    launch = _read_launch()
    threading.Thread(target=_exit_with_head, daemon=True).start()
    context = zmq.Context()
    commands, reports = context.socket(zmq.DEALER), context.socket(zmq.PUSH)
    if launch.key:
        key = UnitKey.read(launch.key)
        key.connect_with(commands)
        key.connect_with(reports)
    commands.set_hwm(0)
    commands.routing_id = identity(launch.rank, launch.life)
    commands.connect(launch.commands)
    reporter = Reporter(reports, launch)
    try:
        _serve(launch, reporter, commands)
    except (ConfigError, LoaderError) as error:  # the user's fault: no traceback
        reporter.tell(RankFailed(launch.rank, str(error), is_users=True))
        return 1
    except Exception as error:
        is_collective = isinstance(error, dist.DistError) or "gloo" in str(error).lower()
        if not is_collective:
            logger.exception("rank %d failed", launch.rank)
        text = f"{type(error).__name__}: {error}"
        reporter.tell(RankFailed(launch.rank, text, is_collective=is_collective))
        return 1
    finally:
        reporter.close()
        context.destroy(linger=_LINGER_MS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
