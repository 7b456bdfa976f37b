"""What a streamed token costs outside the engine: `python -m benchmarks.frontend`.

A scripted engine gives every running request some tokens a step. The server's processor time, user
and system, is divided by the tokens that reach the clients; the engine's and the clients' own time
does not count. The limit is a program that only writes the same frames at the same pace to as many
connections (`frontend_floor`). The added delay is from the moment when the engine has a step's
outputs to the moment when a client has read them. Beside plain text in chat stand requests whose
events hold more, or come from another endpoint (`WAYS`). Prints a table and writes
`benchmarks/results/frontend.json`.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import frontend_floor, frontend_server
from benchmarks.frontend_server import MODEL, ScriptConfig, make_times_file, times_of

RESULTS = Path(__file__).parent / "results" / "frontend.json"
TOKENS_PER_S = {1: 500, 100: 10_000, 1000: 10_000, 2000: 10_000}  # offered, by streams
_SERVERS = {True: frontend_floor.run, False: frontend_server.run}
_DRAFTING_TOKENS = 3
_SAMPLED_EVERY = 16  # streams whose delays are looked at


@dataclass(frozen=True, slots=True)
class Way:
    """What the clients ask.

    Attributes:
        path: the endpoint.
        before_text: what stands before the text in an event.
        num_choices: of each request; each event has a token of one of them.
    """

    path: str
    fields: dict[str, Any]
    before_text: bytes = b'"content":"'
    num_choices: int = 1


_MESSAGES = {"messages": [{"role": "user", "content": "count"}], "max_tokens": 1 << 19}
_CHAT = "/v1/chat/completions"
WAYS = {
    "chat": Way(_CHAT, _MESSAGES),
    "messages": Way("/v1/messages", _MESSAGES, b'"text":"'),
    "responses": Way(
        "/v1/responses", {"input": "count", "max_output_tokens": 1 << 19}, b'"delta":"'
    ),
    "stop": Way(_CHAT, _MESSAGES | {"stop": ["\n\nUser:", "###"]}),
    "stop often": Way(_CHAT, _MESSAGES | {"stop": ["0 1"]}),  # each token has a 0
    "logprobs": Way(_CHAT, _MESSAGES | {"logprobs": True}),
    "5 logprobs": Way(_CHAT, _MESSAGES | {"logprobs": True, "top_logprobs": 5}),
    "n = 2": Way(_CHAT, _MESSAGES | {"n": 2}, num_choices=2),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a server has spent, and what its clients saw.

    Attributes:
        tokens_per_s: what came.
        user_us, system_us: of the server's processor time, microseconds a token.
        delay_ms_p50, delay_ms_p99: added delay, median and 99th percentile.
    """

    tokens_per_s: float
    user_us: float
    system_us: float
    delay_ms_p50: float
    delay_ms_p99: float

    @property
    def cpu_us(self) -> float:
        """Both together."""
        return self.user_us + self.system_us


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the table.

    Attributes:
        way: what is asked, see `WAYS`.
        server: the product.
        floor: writes alone; of chat alone.
        ratio: the server's processor time by that of writes alone.
    """

    streams: int
    tokens_per_step: int
    way: str
    server: Cost
    floor: Cost | None = None
    ratio: float | None = None


class Stream(asyncio.Protocol):
    """A client that counts tokens, and now and then looks at when they came."""

    def __init__(self, way: Way, times: memoryview | None, delays: list[float]) -> None:
        body = json.dumps({"model": MODEL, "stream": True, **way.fields}).encode()
        self._request = (
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (way.path.encode(), len(body), body)
        )
        self._before_text = way.before_text
        self._times = times
        self._delays = delays
        self.num_chars = 0
        self.num_frames = 0
        self.is_done = False
        self.has_text = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Count frames; a step's number is in its text."""
        self.num_frames += data.count(b"\n\n")
        self.has_text = True
        if self._times is not None:
            begin = data.rfind(self._before_text)
            place = begin + len(self._before_text)
            digits = data[place : place + 4]
            if begin >= 0 and digits.isdigit():
                self._delays.append(time.monotonic() - self._times[int(digits)])

    def connection_lost(self, exc: Exception | None) -> None:
        """The server has ended the stream."""
        self.is_done = True


async def _load(
    way: Way, port: int, num_streams: int, num_tokens: int, times: memoryview, parent: Connection
) -> None:
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    streams = []
    for index in range(num_streams):
        looked_at = times if index % _SAMPLED_EVERY == 0 else None
        stream = Stream(way, looked_at, delays)
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
    way: Way, port: int, num_streams: int, num_tokens: int, times_path: Path, parent: Connection
) -> None:
    """The load generator's process."""
    uvloop.run(_load(way, port, num_streams, num_tokens, times_of(times_path), parent))


def serve(config: ScriptConfig, parent: Connection, *, is_floor: bool) -> None:
    """The server's process; whenever it is asked it says what it has spent, user and system."""

    def on_port(port: int) -> None:
        parent.send(port)
        threading.Thread(target=tell_cpu_s, daemon=True).start()

    def tell_cpu_s() -> None:
        while parent.recv():
            spent = resource.getrusage(resource.RUSAGE_SELF)
            parent.send((spent.ru_utime, spent.ru_stime))

    _SERVERS[is_floor](config, on_port)


def measure(
    way: Way, num_streams: int, num_tokens: int, seconds: float, *, is_floor: bool = False
) -> Cost:
    """One server, with its own engine and clients."""
    spawn = multiprocessing.get_context("spawn")
    offered = TOKENS_PER_S.get(num_streams, 10_000)
    with tempfile.TemporaryDirectory() as folder:
        times_path = Path(folder) / "times"
        make_times_file(times_path)
        config = ScriptConfig(
            step_s=num_streams * way.num_choices * num_tokens / offered,
            num_tokens=num_tokens,
            times_path=str(times_path),
        )
        to_server, for_server = spawn.Pipe()
        server = spawn.Process(
            target=serve, args=(config, for_server), kwargs={"is_floor": is_floor}
        )
        server.start()
        for_server.close()  # so that a server that dies is noticed
        port = to_server.recv()
        to_load, for_load = spawn.Pipe()
        arguments = (way, port, num_streams, num_tokens, times_path, for_load)
        clients = spawn.Process(target=load, args=arguments, daemon=True)
        clients.start()
        assert to_load.recv() == "all run"
        to_server.send("cpu")
        before, begin_s = to_server.recv(), time.monotonic()
        time.sleep(seconds)
        to_load.send("enough")
        to_server.send("cpu")
        after, took_s = to_server.recv(), time.monotonic() - begin_s
        num_came, delays_ms = to_load.recv()
        clients.terminate()
        server.terminate()
        server.join()
        clients.join()
    user_s, system_s = (now - then for now, then in zip(after, before, strict=True))
    return Cost(
        tokens_per_s=num_came / took_s,
        user_us=user_s / num_came * 1e6,
        system_us=system_s / num_came * 1e6,
        delay_ms_p50=float(np.percentile(delays_ms, 50)),
        delay_ms_p99=float(np.percentile(delays_ms, 99)),
    )


def compare(name: str, num_streams: int, num_tokens: int, seconds: float) -> Point:
    """The server, and for plain text in chat writes alone."""
    way = WAYS[name]
    server = measure(way, num_streams, num_tokens, seconds)
    if name != "chat":
        return Point(num_streams, num_tokens, name, server)
    floor = measure(way, num_streams, num_tokens, seconds, is_floor=True)
    return Point(num_streams, num_tokens, name, server, floor, server.cpu_us / floor.cpu_us)


def _row(point: Point) -> list[str]:
    server, floor = point.server, point.floor
    return [
        point.way,
        f"{point.streams:,}",
        str(point.tokens_per_step),
        f"{server.tokens_per_s:,.0f}",
        *(f"{cost:.1f}" for cost in (server.cpu_us, server.user_us, server.system_us)),
        "" if floor is None else f"{floor.cpu_us:.1f}",
        "" if point.ratio is None else f"{point.ratio:.2f}",
        f"{server.delay_ms_p50:.0f}/{server.delay_ms_p99:.0f}",
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 100, 1000, 2000])
    parser.add_argument(
        "--drafting-streams", type=int, nargs="*", default=[1000], help="with 3 tokens a step"
    )
    parser.add_argument(
        "--ways", nargs="*", choices=WAYS, default=list(WAYS)[1:], help="other than plain chat"
    )
    parser.add_argument(
        "--way-streams", type=int, nargs="+", default=[100, 1000], help="of each of them"
    )
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console(width=80)
    table = Table(
        *("asked", "streams", "a step", "tokens/s", "us/token", "user", "sys", "floor"),
        *("ratio", "delay ms"),
        box=None,
        padding=(0, 1, 0, 0),
    )
    points = []
    loads = [("chat", num_streams, 1) for num_streams in arguments.streams]
    loads += [("chat", streams, _DRAFTING_TOKENS) for streams in arguments.drafting_streams]
    loads += [(way, streams, 1) for way in arguments.ways for streams in arguments.way_streams]
    for name, num_streams, num_tokens in loads:
        with console.status(f"{name}, {num_streams} streams"):
            point = compare(name, num_streams, num_tokens, arguments.seconds)
        points.append(point)
        table.add_row(*_row(point))
    console.print(table)
    console.print("floor: writes alone; delay: p50/p99 from the engine to the client")
    report = {
        "command": f"python -m benchmarks.frontend --seconds {arguments.seconds:g}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "points": [asdict(point) for point in points],
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
