"""Running requests while long prompts stream in: `python -m benchmarks.latency_targets [--json F]`.

A fixed trace through the product's engine and the built-in model, in real time: eight chats answer
while prompts of 1,200 tokens keep coming. Without targets, with one for the step time, and with one
for the time to the first token: the chats' gaps between tokens, and the prompts' times to the first
token.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from leadline.engine import build
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config

NUM_CHATS = 8
CHAT_TOKENS = 300
PROMPT_TOKENS = 1200
NUM_PROMPTS = 8
PROMPT_INTERVAL_S = 1.0
WARM_UP_S = 1.0  # the first second teaches the engine what a step costs


@dataclass(slots=True)
class Row:
    """One setting's figures, milliseconds."""

    targets: str
    gap_p50: float
    gap_p99: float
    gap_max: float
    ttft_p50: float
    ttft_max: float
    seconds: float


def open_engine(**targets: Any) -> EngineCore:
    """An engine of the built-in model."""
    path = resolve_model("leadline-demo")
    config = EngineConfig(kv_tokens=32_768, **targets)
    resolved, _ = resolve(config, read_model_config(path), cpu_facts(), model_path=str(path))
    core, _ = build.build_core(msgspec.json.encode(resolved), lambda stage: None)
    return core


def request(name: str, prompt_ids: list[int], max_tokens: int) -> EngineRequest:
    """A request that goes on until it has all its tokens."""
    params = SamplingParams(seed=1, max_tokens=max_tokens, temperature=0.7)
    return EngineRequest(
        request_id=name, prompt_ids=prompt_ids, params=params, arrival_s=time.monotonic()
    )


def measure(label: str, **targets: Any) -> Row:
    """Drive the trace."""
    core, dice = open_engine(**targets), random.Random(0)
    for i in range(NUM_CHATS):
        core.submit(request(f"chat{i}", [dice.randrange(2, 4000) for _ in range(8)], CHAT_TOKENS))
    started_s = time.perf_counter()
    last: dict[str, float] = {}
    arrived: dict[str, float] = {}
    first: dict[str, float] = {}
    gaps: list[float] = []
    while core.has_work():
        now_s = time.perf_counter()
        if len(arrived) < NUM_PROMPTS and now_s - started_s > PROMPT_INTERVAL_S * len(arrived):
            name = f"prompt{len(arrived)}"
            arrived[name] = now_s
            prompt = [dice.randrange(2, 4000) for _ in range(PROMPT_TOKENS)]
            core.submit(request(name, prompt, 2))
        for output in core.step():
            now_s, name = time.perf_counter(), output.request_id
            if name in arrived:
                first.setdefault(name, now_s - arrived[name])
            elif name in last and now_s - started_s > WARM_UP_S:
                gaps.append(now_s - last[name])
            last[name] = now_s
    core.close()
    cuts = statistics.quantiles(gaps, n=100)
    times = list(first.values())
    return Row(
        targets=label,
        gap_p50=1e3 * cuts[49],
        gap_p99=1e3 * cuts[98],
        gap_max=1e3 * max(gaps),
        ttft_p50=1e3 * statistics.median(times),
        ttft_max=1e3 * max(times),
        seconds=time.perf_counter() - started_s,
    )


def print_table(rows: list[Row]) -> None:
    """All rows."""
    table = Table(title="Eight chats while long prompts stream in (milliseconds)")
    for name in ("targets", "gap p50", "gap p99", "gap max", "ttft p50", "ttft max", "seconds"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = [row.gap_p50, row.gap_p99, row.gap_max, row.ttft_p50, row.ttft_max]
        table.add_row(row.targets, *(f"{value:.0f}" for value in figures), f"{row.seconds:.0f}")
    Console(width=100).print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--itl-ms", type=float, default=100.0)
    parser.add_argument("--ttft-ms", type=float, default=4000.0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    itl, ttft = options.itl_ms, options.ttft_ms
    rows = [
        measure("none"),
        measure(f"itl {itl:g}", target_itl_ms=itl),
        measure(f"ttft {ttft:g}", target_ttft_ms=ttft),
        measure(f"itl {itl:g}, ttft {ttft:g}", target_itl_ms=itl, target_ttft_ms=ttft),
    ]
    print_table(rows)
    if options.json:
        command = f"python -m benchmarks.latency_targets --itl-ms {itl:g} --ttft-ms {ttft:g}"
        result = {"command": command, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
