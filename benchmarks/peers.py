"""Leadline beside other servers: `python -m benchmarks.peers --peer 'NAME=COMMAND'`.

Each server is started in turn with the same random checkpoint of DeepSeek-V3's architecture (98M
and 1.29B parameters) and asked the same things over HTTP: prompts as token ids, greedy, without an
end before the length, each answer's `usage` compared with what was asked. A command has `{port}`
in it, and `{model}` for the FP8 checkpoint or `{bf16}` for the same weights in BF16. A run begins
when the machine is quiet and is dropped where other processes, or the machine's host, took more
than a fifth of a core. Prints tables, writes JSON and a plot; docs/benchmarks.md says how the peers
are set up.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.peer_model import SIZES, active_bytes, config_of, first_word_id, write_models
from benchmarks.peer_report import Start, plot, print_table, rates_of, sizes_of, summary_of
from benchmarks.peer_scenarios import SCENARIOS, Limits, Scenario, measure, warm_up
from benchmarks.peer_server import Peer, PeerError, running

OWN = "leadline"
RESULTS = Path(__file__).parent / "results" / "peers.json"
OWN_COMMAND = f"{sys.executable} -P -m leadline.server.cli serve {{model}} --port {{port}}"
OWN_FLAGS = "--speculative-tokens 0"  # random weights cannot be drafted


def read_bandwidth(num_bytes: int = 1 << 30, seconds: float = 0.7) -> float:
    """Bytes a second that all cores read of memory, at best."""
    data = torch.ones(num_bytes // 4)
    best, until_s = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        begin_s = time.perf_counter()
        data.sum()
        best = max(best, num_bytes / (time.perf_counter() - begin_s))
    return best


def measure_peer(
    peer: Peer,
    size: str,
    places: dict[str, Any],
    scenarios: Sequence[Scenario],
    seed: int,
    limits: Limits,
    console: Console,
) -> Start:
    """One start of a peer, every scenario once.

    Raises:
        PeerError: it does not start, or does other work than what it is asked.
    """
    ids = range(first_word_id(), int(config_of(size)["vocab_size"]))
    bandwidth = read_bandwidth()
    log = Path(places["model"]).parent / f"{peer.name.replace(' ', '-')}.log"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    with running(peer, places, log) as server:
        warm_up(server, ids, seed + len(scenarios) * limits.num_tries)
        outcomes = []
        for number, scenario in enumerate(scenarios):
            own_seed = seed + number * limits.num_tries
            outcome = measure(server, scenario, ids, own_seed, limits, console.print)
            if outcome is not None:
                outcomes.append(outcome)
                rates = ", ".join(f"{name} {rate:.1f}" for name, rate in outcome.rates.items())
                console.print(f"{size} {peer.name}: {rates}")
        peak_bytes = server.memory.peak_bytes
    num_dropped = len(scenarios) - len(outcomes)
    return Start(size, peer.name, at, server.start_s, peak_bytes, bandwidth, outcomes, num_dropped)


def read_into_memory(directory: Path) -> None:
    """All files, so that no start waits for a disk."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def share_of_bandwidth(starts: Sequence[Start], size: str, peer: str, item_bytes: float) -> float:
    """What decoding reads a second, by the bytes that a token needs, of what memory gives."""
    rates = rates_of(starts, peer, "decode at 128")
    if rates is None:
        return 0.0
    bandwidth = max(start.bandwidth for start in starts)
    return rates.median * active_bytes(config_of(size), item_bytes) / bandwidth


def report(starts: Sequence[Start], out: Path, console: Console) -> None:
    """Print, and write the result file and its plot; Leadline comes first."""
    starts = sorted(starts, key=lambda start: start.peer != OWN)
    sizes = sizes_of(starts)
    by_size = {size: [start for start in starts if start.size == size] for size in sizes}
    summary = {}
    for size, chosen in by_size.items():
        print_table(size, chosen, OWN, console)
        share = share_of_bandwidth(chosen, size, OWN, 1.0)
        bandwidth = max(start.bandwidth for start in chosen) / 1e9
        if share:
            console.print(f"decode reads {share:.0%} of {bandwidth:.1f} GB/s, at 1 byte a weight")
        summary[size] = {
            "figures": summary_of(chosen, OWN),
            "memory_gb_per_s": round(bandwidth, 1),
            "share_of_bandwidth": round(share, 3),
        }
    result = {
        "command": "python -m benchmarks.peers, with the peers of docs/benchmarks.md",
        "machine": machine(),
        "summary": summary,
        "starts": [start.rounded() for start in starts],
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    plot(starts, out.with_suffix(".png"))


def machine() -> str:
    """The processor and its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="a server to compare with, its command with {model} or {bf16}, and {port}",
    )
    parser.add_argument(
        "--leadline",
        default=f"{OWN_COMMAND} {OWN_FLAGS}",
        metavar="COMMAND",
        help="Leadline's command (default: %(default)s); empty to leave it out",
    )
    parser.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES))
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--rounds", type=int, default=3, help="starts of each server; 0 shows what --keep has"
    )
    parser.add_argument(
        "--models", type=Path, default=Path("peer-models"), help="folder of the checkpoints"
    )
    parser.add_argument("--write-models", action="store_true", help="write them, and no more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON; the plot lies beside it")
    parser.add_argument("--keep", action="store_true", help="add to the runs that --out has")
    limits = Limits()
    parser.add_argument(
        "--max-others",
        type=float,
        default=limits.max_others_cores,
        metavar="CORES",
        help="a run is dropped where others took more (default: %(default)s)",
    )
    parser.add_argument("--tries", type=int, default=limits.num_tries, help="for a run that counts")
    parser.add_argument(
        "--quiet-timeout",
        type=float,
        default=limits.quiet_timeout_s,
        metavar="SECONDS",
        help="wait so long for a quiet machine before a run (default: %(default)s)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if a peer could not be measured."""
    options = parse_arguments(arguments)
    console = Console(width=160)
    try:
        own = [Peer.parse(f"{OWN}={options.leadline}")] if options.leadline else []
        peers = own + [Peer.parse(text) for text in options.peer]
    except PeerError as error:
        console.print(f"benchmarks.peers: {error}", markup=False)
        return 2
    models = {size: write_models(options.models, size) for size in options.size}
    if options.write_models:
        return 0
    kept = json.loads(options.out.read_text())["starts"] if options.keep else []
    starts = [Start.read(fields) for fields in kept]
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenario]
    limits = Limits(options.max_others, options.tries, options.quiet_timeout)
    failures = 0
    for number in range(options.rounds):
        for size, (fp8, bf16) in models.items():
            for peer in peers:
                read_into_memory(bf16 if "{bf16" in " ".join(peer.words) else fp8)
                places = {"model": fp8, "bf16": bf16}
                seed = 1000 * number  # the same prompts for each of them
                try:
                    start = measure_peer(peer, size, places, scenarios, seed, limits, console)
                except PeerError as error:
                    console.print(str(error), markup=False)
                    failures += 1
                    continue
                starts.append(start)
    if not starts:  # then there is nothing to show
        return 1
    report(starts, options.out, console)
    return int(failures > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # peers are stopped
    sys.exit(main())
