"""What a streamed token costs outside the engine: `python -m benchmarks.frontend`.

A scripted engine gives every running request a token a step. The server's processor time, user and
system, is divided by the tokens that reach the clients; the engine's and the clients' own time does
not count. The added delay is from the moment when the engine has a step's outputs to the moment
when a client has read them. Prints a table and writes `benchmarks/results/frontend.json`.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.frontend_server import (
    MODEL,
    ScriptConfig,
    make_times_file,
    run,
    times_of,
)

RESULTS = Path(__file__).parent / "results" / "frontend.json"
TOKENS_PER_S = {1: 500, 100: 10_000, 1000: 10_000, 2000: 10_000}  # offered, by streams
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CONTENT = b'"content":"'
_SAMPLED_EVERY = 16  # streams whose delays are looked at


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the table.

    Attributes:
        cpu_us_per_token: of the server, microseconds.
        tokens_per_core_s: what one core of it could do.
        tokens_per_s: what came.
        delay_ms: added delay, median and 99th percentile.
    """

    streams: int
    tokens_per_step: int
    tokens_per_s: float
    cpu_us_per_token: float
    tokens_per_core_s: float
    delay_ms_p50: float
    delay_ms_p99: float


class Stream(asyncio.Protocol):
    """A client that counts tokens, and now and then looks at when they came."""

    def __init__(self, body: bytes, times: memoryview | None, delays: list[float]) -> None:
        self._body = body
        self._times = times
        self._delays = delays
        self.num_chars = 0
        self.num_frames = 0
        self.is_done = False
        self.has_text = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(self._body)
        )
        transport.write(head + self._body)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count frames; a step's number is in its text."""
        self.num_frames += data.count(b"\n\n")
        self.has_text = True
        if self._times is not None:
            place = data.rfind(_CONTENT) + len(_CONTENT)
            digits = data[place : place + 4]
            if place >= len(_CONTENT) and digits.isdigit():
                self._delays.append(time.monotonic() - self._times[int(digits)])

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has ended the stream."""
        self.is_done = True


async def _load(
    port: int, num_streams: int, num_tokens: int, times: memoryview, parent: Connection
) -> None:
    loop = asyncio.get_running_loop()
    content = [{"role": "user", "content": "count"}]
    fields = {"model": MODEL, "messages": content, "max_tokens": 1 << 19, "stream": True}
    body = json.dumps(fields).encode()
    delays: list[float] = []
    streams = []
    for index in range(num_streams):
        looked_at = times if index % _SAMPLED_EVERY == 0 else None
        stream = Stream(body, looked_at, delays)
        await loop.create_connection(lambda stream=stream: stream, "127.0.0.1", port)
        streams.append(stream)
        if index % 50 == 49:
            await asyncio.sleep(0.01)
    while not all(stream.num_frames > 1 for stream in streams):
        await asyncio.sleep(0.05)
    delays.clear()
    parent.send("all run")
    before = sum(stream.num_frames for stream in streams)
    while not parent.poll():
        await asyncio.sleep(0.02)
    after = sum(stream.num_frames for stream in streams)
    assert not any(stream.is_done for stream in streams), "a stream has ended early"
    parent.send(((after - before) * num_tokens, [1000 * delay for delay in delays]))


def load(
    port: int, num_streams: int, num_tokens: int, times_path: Path, parent: Connection
) -> None:
    """The load generator's process."""
    uvloop.run(_load(port, num_streams, num_tokens, times_of(times_path), parent))


def serve(config: ScriptConfig, parent: Connection) -> None:
    """The server's process."""
    run(config, parent.send)


def cpu_s(process_id: int) -> tuple[float, float]:
    """Seconds of processor time of a process so far, user and system, its threads' included."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS_PER_S, int(fields[12]) / _TICKS_PER_S


def measure(num_streams: int, num_tokens: int, seconds: float) -> Point:
    """One point: its own server, engine and clients."""
    spawn = multiprocessing.get_context("spawn")
    offered = TOKENS_PER_S.get(num_streams, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        times_path = Path(folder) / "times"
        make_times_file(times_path)
        config = ScriptConfig(
            step_s=num_streams * num_tokens / offered,
            num_tokens=num_tokens,
            times_path=str(times_path),
        )
        to_server, for_server = spawn.Pipe()
        server = spawn.Process(target=serve, args=(config, for_server))
        server.start()
        for_server.close()  # so that a server that dies is noticed
        port = to_server.recv()
        to_load, for_load = spawn.Pipe()
        arguments = (port, num_streams, num_tokens, times_path, for_load)
        clients = spawn.Process(target=load, args=arguments, daemon=True)
        clients.start()
        assert to_load.recv() == "all run"
        assert server.pid is not None
        begin_cpu_s, begin_s = cpu_s(server.pid), time.monotonic()
        time.sleep(seconds)
        to_load.send("enough")
        spent_s, took_s = cpu_s(server.pid) - begin_cpu_s, time.monotonic() - begin_s
        num_came, delays_ms = to_load.recv()
        clients.terminate()
        server.terminate()
        server.join()
        clients.join()
    return Point(
        streams=num_streams,
        tokens_per_step=num_tokens,
        tokens_per_s=num_came / took_s,
        cpu_us_per_token=spent_s / num_came * 1e6,
        tokens_per_core_s=num_came / spent_s,
        delay_ms_p50=float(np.percentile(delays_ms, 50)),
        delay_ms_p99=float(np.percentile(delays_ms, 99)),
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000, 2000])
    parser.add_argument("--tokens-per-step", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console()
    table = Table("streams", "tokens/s", "us/token", "tokens/s a core", "delay p50", "p99 (ms)")
    points = []
    for num_streams in arguments.streams:
        with console.status(f"{num_streams} streams"):
            point = measure(num_streams, arguments.tokens_per_step, arguments.seconds)
        points.append(point)
        table.add_row(
            str(num_streams),
            f"{point.tokens_per_s:,.0f}",
            f"{point.cpu_us_per_token:.1f}",
            f"{point.tokens_per_core_s:,.0f}",
            f"{point.delay_ms_p50:.2f}",
            f"{point.delay_ms_p99:.2f}",
        )
    console.print(table)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "points": [asdict(point) for point in points],
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
