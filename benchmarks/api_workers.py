"""What `--api-workers` brings: `python -m benchmarks.api_workers`.

A scripted engine gives every running request a token a step. Processor time, user and system, is
divided by the tokens that reach the clients: of all workers together, of the busiest one, and of
the process that owns them. The busiest worker's time says how many tokens a second there can be
where each has a core to itself; on a machine with fewer cores, that is not measured.
Prints a table and writes `benchmarks/results/api_workers.json`.
"""

import argparse
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import frontend_server
from benchmarks.frontend import WAYS, load
from benchmarks.processes import children_of, command_of
from leadline.loader.synthetic import tiny_v3

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "api_workers.json"
_SCRIPT_VARIABLE = "LEADLINE_BENCHMARK_SCRIPT"
_SERVER = """
import sys
from leadline.engine.config import EngineConfig
from leadline.server.config import ServerConfig
from leadline.server.serve import serve

engine = EngineConfig(model=sys.argv[1], served_model_name=(sys.argv[2],), kv_tokens=4096)
server = ServerConfig(port=0, api_workers=int(sys.argv[3]), log_level="warning")
sys.exit(serve(engine, server, builder="benchmarks.api_workers:build"))
"""
_CONFIG = tiny_v3() | {
    "vocab_size": 16384,
    "num_nextn_predict_layers": 0,
    "max_position_embeddings": 1 << 20,
    "bos_token_id": 0,
    "eos_token_id": 16383,
    "rope_scaling": None,
}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"


@dataclass(frozen=True, slots=True)
class Point:
    """One row of the table; times are of processors, microseconds for each token that came.

    Attributes:
        memory_mb: of a worker and the processes that try requests for it.
    """

    api_workers: int
    streams: int
    tokens_per_s: float
    workers_us: float
    busiest_us: float
    parent_us: float
    memory_mb: float


def cpu_s(process_id: int) -> float:
    """Seconds of processor time of a process so far, its threads' included."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def build(data: bytes, on_stage: Callable[[str], None]) -> Any:
    """The engine, in its process."""
    return frontend_server.build(os.environ[_SCRIPT_VARIABLE].encode(), on_stage)


def write_model(directory: Path) -> None:
    """What a server reads of a model whose tokens are numbers."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(_CONFIG))
    (directory / "tokenizer.json").write_text(frontend_server.number_tokenizer().to_json())
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    (directory / "chat_template.jinja").write_text(_TEMPLATE)


def processes_of(server: int, num_workers: int) -> list[int]:
    """Those that answer requests."""
    if num_workers == 1:
        return [server]
    return [pid for pid in children_of(server) if "workers.worker" in command_of(pid)]


def memory_bytes(pid: int) -> int:
    """Of a process and those that it has started, without an engine.

    What others use too is divided by their number.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    own = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    below = [child for child in children_of(pid) if "engine.process" not in command_of(child)]
    return own + sum(map(memory_bytes, below))


def measure(num_workers: int, num_streams: int, offered_per_s: float, seconds: float) -> Point:
    """One point: its own server, engine and clients."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        times_path = Path(folder) / "times"
        frontend_server.make_times_file(times_path)
        write_model(Path(folder) / "model")
        script = frontend_server.ScriptConfig(
            step_s=num_streams / offered_per_s, num_tokens=1, times_path=str(times_path)
        )
        paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", _SERVER, f"{folder}/model", "numbers", str(num_workers)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(paths),
                _SCRIPT_VARIABLE: msgspec.json.encode(script).decode(),
            },
        )
        assert server.stdout is not None
        line = next(line for line in server.stdout if " listens on " in line)
        port = int(line.partition("127.0.0.1:")[2].split()[0])
        to_load, for_load = spawn.Pipe()
        arguments = (WAYS["chat"], port, num_streams, 1, times_path, for_load)
        clients = spawn.Process(target=load, args=arguments, daemon=True)
        clients.start()
        assert to_load.recv() == "all run"
        workers = processes_of(server.pid, num_workers)
        pids = list(dict.fromkeys([server.pid, *workers]))
        before, begin_s = {pid: cpu_s(pid) for pid in pids}, time.monotonic()
        time.sleep(seconds)
        to_load.send("enough")
        spent_s = {pid: cpu_s(pid) - before[pid] for pid in pids}
        took_s, memory = time.monotonic() - begin_s, max(map(memory_bytes, workers))
        num_came, _ = to_load.recv()
        clients.terminate()
        server.send_signal(signal.SIGKILL)  # all others end with it
        server.communicate()
        clients.join()
    return Point(
        api_workers=num_workers,
        streams=num_streams,
        tokens_per_s=num_came / took_s,
        workers_us=sum(spent_s[pid] for pid in workers) / num_came * 1e6,
        busiest_us=max(spent_s[pid] for pid in workers) / num_came * 1e6,
        parent_us=0.0 if num_workers == 1 else spent_s[server.pid] / num_came * 1e6,
        memory_mb=memory / 1e6,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--api-workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--tokens-per-s", type=float, default=20_000, help="that are offered")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    console = Console()
    table = Table("workers", "streams", "tokens/s", "us/token", "busiest", "parent", "MB a worker")
    points = []
    for num_workers in arguments.api_workers:
        with console.status(f"{num_workers} workers"):
            point = measure(
                num_workers, arguments.streams, arguments.tokens_per_s, arguments.seconds
            )
        points.append(point)
        table.add_row(
            str(num_workers),
            str(point.streams),
            f"{point.tokens_per_s:,.0f}",
            f"{point.workers_us:.1f}",
            f"{point.busiest_us:.1f}",
            f"{point.parent_us:.1f}",
            f"{point.memory_mb:.0f}",
        )
    console.print(table)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "points": [asdict(point) for point in points],
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
