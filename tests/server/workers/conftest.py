"""A server with several API workers, in processes of its own, with an engine without a model."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.processes import children_of, command_of, tree_of

WAIT_S = 30.0  # generous: a starved machine is no failure
PROGRAM = """
import json
import sys
from leadline.engine.config import EngineConfig
from leadline.server.config import ServerConfig
from leadline.server.health import StallLimits
from leadline.server.serve import serve

engine = EngineConfig(model=sys.argv[1], served_model_name=("m",), kv_tokens=1024, seed=7)
options = {"port": 0, "api_workers": 2, "access_log": True} | json.loads(sys.argv[2])
builder = "paced_builder:" + options.pop("builder", "paced")
limits = StallLimits(min_s=1.0)
sys.exit(serve(engine, ServerConfig(**options), builder=builder, stall_limits=limits))
"""
_LISTENS = re.compile(r"listens on (https?://\S+)")


class Server:
    """A running server.

    Attributes:
        url: where it listens.
        head: what it has written to standard output so far.
        log: the file that has standard error.
    """

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self.log = log
        self.head = self.url = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text not in self.head:
            line = self.process.stdout.readline()
            assert line, self.errors
            self.head += line
        if found := _LISTENS.search(self.head):
            self.url = found[1]

    @property
    def errors(self) -> str:
        return self.log.read_text()

    @property
    def engine(self) -> int:
        [found] = [pid for pid in self.children if "engine.process" in command_of(pid)]
        return found

    @property
    def workers(self) -> list[int]:
        return [pid for pid in self.children if "workers.worker" in command_of(pid)]

    @property
    def children(self) -> list[int]:
        return children_of(self.process.pid)

    def worker_of(self, request_id: str) -> int:
        """The process that has answered a request, by its line in the access log."""
        line = re.compile(rf"uvicorn\.access \[{request_id}\].* worker=(\d+)")
        self.wait_until(lambda: line.search(self.errors) is not None, "the line of the request")
        found = line.search(self.errors)
        assert found
        return self.process_of(int(found[1]))

    def process_of(self, number: int) -> int:
        """The latest process of a worker."""
        found = re.findall(rf"API worker {number} answers \(process (\d+)\)", self.errors)
        return int(found[-1])

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_s, f"{what}: not within {WAIT_S} s\n{self.errors}"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the end; the status."""
        return self.process.wait(WAIT_S)

    def client(self, **options: Any) -> httpx.Client:
        """A client whose requests are one worker's: it has one connection."""
        limits = httpx.Limits(max_connections=1, keepalive_expiry=WAIT_S)
        return httpx.Client(
            base_url=self.url, timeout=WAIT_S, limits=limits, trust_env=False, **options
        )

    @contextlib.contextmanager
    def clients(self) -> Iterator[tuple[httpx.Client, httpx.Client]]:
        """Two, of different workers."""
        with self.client() as first, self.client() as second:
            for client in (first, second):
                assert client.get("/livez").status_code == 200
            yield first, second


@contextlib.contextmanager
def launched(model: Path, log: Path, **options: Any) -> Iterator[Server]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, str(model), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield Server(process, log)
    finally:
        for pid in reversed(tree_of(process.pid)):  # one that is stopped would not notice the end
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


@contextlib.contextmanager
def running(model: Path, log: Path, **options: Any) -> Iterator[Server]:
    with launched(model, log, **options) as server:
        server.read_until("leadline chat")
        workers = options.get("api_workers", 2)
        if workers > 1:
            server.wait_until(
                lambda: server.errors.count(" answers (process") == workers, "workers"
            )
        yield server


@pytest.fixture(scope="module")
def server(
    model: Path, importable: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One for all tests that leave it as they found it."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with running(model, log, metrics_api_key=["sk-secret-1"]) as server:
        yield server


@pytest.fixture
def start(
    model: Path, importable: None, tmp_path: Path
) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Starts a server that the test may end, and waits until it is up."""
    return lambda **options: running(model, tmp_path / "stderr", **options)


@pytest.fixture
def launch(
    model: Path, importable: None, tmp_path: Path
) -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """Starts a server that the test may end."""
    return lambda model=model, **options: launched(model, tmp_path / "stderr", **options)
