"""`leadline serve` as a user starts it: a process of its own, on a free port."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import openai
import pytest

from benchmarks.processes import children_of, command_of
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config

WAIT_S = 120.0  # generous: a starved machine is no failure
BUILTIN = "leadline-demo"
_LISTENS = re.compile(r"listens on (http://\S+)")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "leadline.server.cli", *arguments]


@dataclass
class Process:
    """A running `leadline serve`.

    Attributes:
        lines: what it has printed so far.
    """

    popen: "subprocess.Popen[str]"
    log: Path
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def wait_until_ready(self) -> None:
        """Reads what it prints until it listens; the rest of the table follows in one go."""
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))
            if found := _LISTENS.search(line):
                self.url = found[1]
            if self.url and line.startswith("  leadline chat"):
                return
        raise AssertionError(f"no start: {self.lines} {self.errors()}")

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self) -> int:
        return self.popen.wait(WAIT_S)

    def errors(self) -> list[str]:
        """What it has written to standard error."""
        return self.log.read_text().splitlines()

    def engine_pid(self) -> int:
        if not Path("/proc").exists():
            pytest.skip("finds the engine through /proc")
        children = children_of(self.popen.pid)
        [engine] = [child for child in children if "engine.process" in command_of(child)]
        return engine

    @staticmethod
    def is_gone(pid: int) -> bool:
        return command_of(pid) == ""


def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {WAIT_S} s"
        time.sleep(0.02)


@contextlib.contextmanager
def leadline_serve(log: Path, *arguments: str) -> Iterator[Process]:
    with log.open("w") as stderr:
        popen = subprocess.Popen(
            command("serve", *arguments, "--num-threads", "1", "--port", "0"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        )
    process = Process(popen, log)
    try:
        process.wait_until_ready()
        yield process
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(WAIT_S)
        assert popen.stdout is not None
        popen.stdout.close()


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[[Callable[[], bool], str], None]:
    """Waits for a condition; the second argument says which."""
    return eventually


@pytest.fixture(scope="session")
def start_service() -> Callable[..., contextlib.AbstractContextManager[Process]]:
    """Starts `leadline serve` with a log file, a model and flags."""

    def start(log: Path, model: str, *flags: str) -> contextlib.AbstractContextManager[Process]:
        return leadline_serve(log, model, "--served-model-name", "demo", *flags)

    return start


@pytest.fixture(scope="session")
def cli() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `leadline` to its end."""

    def run(*arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments),
            input=text,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            env=os.environ | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"},
        )

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The built-in model; while it has no weights, its twin with random ones."""
    builtin = resolve_model(BUILTIN)
    if (builtin / "model.safetensors").exists():
        return BUILTIN
    from leadline.loader.synthetic import random_tensors
    from leadline.loader.writer import write_weights

    twin = tmp_path_factory.mktemp("model") / "twin"
    shutil.copytree(builtin, twin)
    config = read_model_config(twin)
    write_weights(twin, config, random_tensors(config, 0, with_mtp=True))
    return str(twin)


@pytest.fixture(scope="session")
def service(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One server for all tests that leave it as they found it."""
    log = tmp_path_factory.mktemp("log") / "stderr"
    with leadline_serve(log, model, "--served-model-name", "demo") as process:
        yield process


@pytest.fixture
def own_service(model: str, tmp_path: Path) -> Iterator[Process]:
    """A server that the test may end."""
    flags = ("--served-model-name", "demo", "--drain-timeout", str(WAIT_S))
    with leadline_serve(tmp_path / "stderr", model, *flags) as process:
        yield process


@pytest.fixture
def brittle_service(model: str, tmp_path: Path) -> Iterator[Process]:
    """A server whose engine is not started again."""
    flags = ("--served-model-name", "demo", "--max-engine-restarts", "0")
    with leadline_serve(tmp_path / "stderr", model, *flags) as process:
        yield process


@pytest.fixture
def client(service: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="-", max_retries=0, timeout=WAIT_S
    ) as client:
        yield client


@pytest.fixture
def http(service: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, timeout=WAIT_S) as client:
        yield client
