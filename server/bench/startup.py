"""`leadline bench startup`: from the command to a server that listens, and to its first answer."""

import asyncio
import contextlib
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec

from leadline.server.bench.asking import Asker
from leadline.server.bench.errors import BenchError
from leadline.server.bench.http_client import HttpClient
from leadline.server.bench.options import CHAT, ServeOptions, default_endpoint
from leadline.server.bench.questions import QUESTIONS
from leadline.server.bench.sample import Sample
from leadline.server.bench.target import first_model

_LISTENS = re.compile(r"listens on (https?://\S+?)[\s.]*(?:\(|$)")
_STOP_S = 60.0
_NUM_SHOWN_LINES = 5
_TITLES = {"listens_s": "Listens", "answer_s": "First answer"}
_FIGURES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "median": statistics.median,
    "min": min,
    "max": max,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupOptions:
    """The flags of `leadline bench startup`.

    Attributes:
        serve_args: what `leadline serve` is started with.
        headers: of the first request.
    """

    num_runs: int
    serve_args: tuple[str, ...]
    headers: Mapping[str, str]
    output_json: str | None

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            BenchError: names the flag.
        """
        if self.num_runs < 1:
            raise BenchError(f"--num-runs is {self.num_runs}; allowed: at least 1")


@dataclass(frozen=True, slots=True)
class Startup:
    """One start; seconds from the command."""

    listens_s: float
    answer_s: float


def bench_startup(options: StartupOptions) -> int:
    """Start and stop the server so many times, and show how long it took; the exit status."""
    starts: list[Startup] = []
    try:
        options.check()
        for number in range(1, options.num_runs + 1):
            start = measure_start(options)
            starts.append(start)
            sys.stdout.write(
                f"run {number}: listens after {start.listens_s:.2f} s, "
                f"first answer after {start.answer_s:.2f} s\n"
            )
            sys.stdout.flush()
        result = result_of(starts)
        for name in ("listens_s", "answer_s"):
            figures = ", ".join(f"{word} {result[f'{word}_{name}']:.2f}" for word in _FIGURES)
            sys.stdout.write(f"{_TITLES[name]} (s): {figures}\n")
        if options.output_json is not None:
            _save(options.output_json, result)
    except BenchError as error:
        sys.stderr.write(f"leadline bench startup: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def result_of(starts: Sequence[Startup]) -> dict[str, object]:
    """Each start, and figures of them all."""
    result: dict[str, object] = {"num_runs": len(starts)}
    for name in _TITLES:
        values = [getattr(start, name) for start in starts]
        result[name] = values
        result |= {f"{word}_{name}": of(values) for word, of in _FIGURES.items()}
    return result


def measure_start(options: StartupOptions) -> Startup:
    """One start of a server on a free port, which is stopped again.

    Raises:
        BenchError: it does not start, or does not answer.
    """
    with tempfile.TemporaryFile("w+") as log:
        begin_s = time.monotonic()
        with _server(options.serve_args, log) as process:
            url = _wait_until_it_listens(process, log)
            listens_s = time.monotonic() - begin_s
            asyncio.run(_ask(url, options.headers))
            return Startup(listens_s, time.monotonic() - begin_s)


@contextlib.contextmanager
def _server(arguments: Sequence[str], log: IO[str]) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-P", "-m", "leadline.server.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait_until_it_listens(process: "subprocess.Popen[str]", log: IO[str]) -> str:
    """The address that it prints."""
    for line in process.stdout or ():
        if found := _LISTENS.search(line):
            return found[1]
    log.seek(0)
    errors = " / ".join(log.read().splitlines()[-_NUM_SHOWN_LINES:])
    raise BenchError(f"the server ended with status {process.wait()} before it listened: {errors}")


async def _ask(url: str, headers: Mapping[str, str]) -> None:
    options = ServeOptions(
        base_url=url, backend=CHAT, endpoint=default_endpoint(CHAT), headers=headers
    )
    http = HttpClient(url, headers, insecure=True)  # it is the server that was just started
    try:
        asker = Asker(http, options, await first_model(http, url))
        record = await asker.ask(Sample(QUESTIONS[0], None, 1), "bench-startup")
    finally:
        await http.close()
    if not record.is_success:
        raise BenchError(f"the first request failed: {record.error}")


def _save(path: str, result: Mapping[str, object]) -> None:
    try:
        Path(path).write_bytes(msgspec.json.encode(result))
    except OSError as error:
        raise BenchError(f"--output-json {path} cannot be written: {error.strerror}") from None
