"""What MTP drafts bring: `python -m benchmarks.speculation [--out DIR]`.

The built-in model answers held-out chats through the product's engine, without speculation and at
several depths, at several temperatures and numbers of requests at once. For each: acceptance of
the drafts by position, acceptance length, tokens a second against speculation off, and the bound
(the acceptance length over the measured cost of a step). Rounds of all depths are interleaved, so
that a busy machine troubles all alike; what is shown is the median and the spread of the ratios.

Exits 1 where the first draft is accepted less often than it should be (`FIRST_ACCEPTANCE`). Equal
text is no gate here: drafts that are never accepted pass it.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.demo_model.chat_format import render_prompt
from benchmarks.demo_model.chats import build_corpus
from leadline.engine import build
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

DEPTHS = (0, 1, 2, 3)
ADAPTIVE_DEPTH = 3
TEMPERATURES = (0.0, 0.6, 1.0)
CONCURRENCIES = (1, 8, 32)
MAX_TOKENS = 64
FIRST_ACCEPTANCE = {0.0: 0.85, 1.0: 0.75}  # by temperature, at least


@dataclass(slots=True)
class Measurement:
    """One round at one depth.

    Attributes:
        step_s: mean seconds of a step.
        length: tokens a request gains in a step that verifies drafts.
        acceptance: share of the steps with drafts that accepted the first, the second, ... draft.
    """

    tokens_per_s: float
    step_s: float
    length: float
    acceptance: list[float]


@dataclass(slots=True)
class Row:
    """One line of the table; ratios are against speculation off in the same round.

    Attributes:
        acceptance_per_pos: share of the steps with drafts that accepted the i-th draft.
        bound: the acceptance length over the measured cost of a step.
        share_of_bound: how much of it was reached.
    """

    concurrency: int
    temperature: float
    depth: str
    acceptance_per_pos: list[float]
    acceptance_length: float
    tokens_per_s: float
    ratio: float
    ratio_spread: float
    bound: float
    share_of_bound: float


def open_engine(name: str) -> EngineCore:
    """An engine of its own for `0`, `1`, ... drafts, or `adaptive`."""
    depth = ADAPTIVE_DEPTH if name == "adaptive" else int(name)
    path = resolve_model("leadline-demo")
    config = EngineConfig(speculative_tokens=depth, kv_tokens=32_768, prefix_caching=False)
    resolved, _ = resolve(config, read_model_config(path), cpu_facts(), model_path=str(path))
    adaptive = name == "adaptive"
    core, _ = build.build_core(
        msgspec.json.encode(resolved),
        lambda stage: None,
        make_policy=lambda num_drafts: DraftPolicy(num_drafts, adaptive=adaptive),
    )
    return core


def measure(
    core: EngineCore, prompts: list[list[int]], concurrency: int, temperature: float
) -> Measurement:
    """Answer all prompts, `concurrency` at a time."""
    before = core.stats()
    started_s = time.perf_counter()
    waiting = list(enumerate(prompts))
    while waiting or core.has_work():
        while waiting and core.stats().num_running + core.stats().num_waiting < concurrency:
            i, prompt = waiting.pop()
            params = SamplingParams(
                seed=i, max_tokens=MAX_TOKENS, temperature=temperature, eos_token_ids=(1,)
            )
            core.submit(EngineRequest(request_id=str(i), prompt_ids=prompt, params=params))
        core.step()
    seconds = time.perf_counter() - started_s
    after = core.stats()
    drafts = after.num_drafts - before.num_drafts
    accepted = after.num_accepted_tokens - before.num_accepted_tokens
    per_pos = zip(after.num_accepted_per_pos, before.num_accepted_per_pos, strict=True)
    return Measurement(
        tokens_per_s=(after.generation_tokens - before.generation_tokens) / seconds,
        step_s=seconds / (after.num_steps - before.num_steps),
        length=1 + accepted / drafts if drafts else 1.0,
        acceptance=[(late - early) / drafts for late, early in per_pos] if drafts else [],
    )


def make_row(
    concurrency: int, temperature: float, name: str, rounds: list[dict[str, Measurement]]
) -> Row:
    """Medians over rounds."""
    ratios = [r[name].tokens_per_s / r["0"].tokens_per_s for r in rounds]
    bounds = [r[name].length * r["0"].step_s / r[name].step_s for r in rounds]
    shares = [ratio / bound for ratio, bound in zip(ratios, bounds, strict=True)]
    positions = zip(*(r[name].acceptance for r in rounds), strict=True)
    return Row(
        concurrency=concurrency,
        temperature=temperature,
        depth=name,
        acceptance_per_pos=[round(statistics.median(values), 3) for values in positions],
        acceptance_length=statistics.median(r[name].length for r in rounds),
        tokens_per_s=statistics.median(r[name].tokens_per_s for r in rounds),
        ratio=statistics.median(ratios),
        ratio_spread=max(ratios) - min(ratios),
        bound=statistics.median(bounds),
        share_of_bound=statistics.median(shares),
    )


def print_table(rows: list[Row]) -> None:
    """All rows, as a table."""
    table = Table(title="MTP speculation on leadline-demo")
    for name in (
        *("at once", "temperature", "drafts", "accepted by position", "acceptance length"),
        *("tokens/s", "x off", "spread", "bound", "of it"),
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            str(row.concurrency),
            f"{row.temperature:.1f}",
            row.depth,
            " ".join(f"{value:.2f}" for value in row.acceptance_per_pos),
            f"{row.acceptance_length:.2f}",
            f"{row.tokens_per_s:.0f}",
            f"{row.ratio:.2f}",
            f"{row.ratio_spread:.2f}",
            f"{row.bound:.2f}",
            f"{row.share_of_bound:.0%}",
        )
    Console(width=125).print(table)


def plot(rows: list[Row], path: Path) -> None:
    """Speed-up by depth, one panel for each number of requests at once."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CONCURRENCIES), figsize=(12, 3.6), sharey=True)
    for axis, concurrency in zip(axes, CONCURRENCIES, strict=True):
        for temperature in TEMPERATURES:
            chosen = [
                row
                for row in rows
                if (row.concurrency, row.temperature) == (concurrency, temperature)
            ]
            label = f"temperature {temperature}"
            axis.plot([r.depth for r in chosen], [r.ratio for r in chosen], "o-", label=label)
        axis.axhline(1.0, color="grey", linewidth=0.8)
        axis.set(title=f"{concurrency} at once", xlabel="drafts a step")
    axes[0].set_ylabel("tokens a second, x speculation off")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def misses(rows: list[Row]) -> list[str]:
    """Where the first draft is accepted too rarely."""
    return [
        f"{row.depth} drafts, {row.concurrency} at once, temperature {row.temperature}: "
        f"the first is accepted {row.acceptance_per_pos[0]:.2f} of the time, not {least}"
        for row in rows
        for temperature, least in FIRST_ACCEPTANCE.items()
        if row.temperature == temperature
        and row.acceptance_per_pos
        and row.acceptance_per_pos[0] < least
    ]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--chats",
        type=int,
        default=32,
        help="held-out chats a round, at least as many as are at once",
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for speculation.json and speculation.png")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_dir(resolve_model("leadline-demo"))
    num_chats = max(arguments.chats, *CONCURRENCIES)
    chats = build_corpus().heldout_chats(num_chats, seed=2, kind="fact")
    everything = [tokenizer.encode(render_prompt(heldout.chat)) for heldout in chats]
    engines = {name: open_engine(name) for name in (*map(str, DEPTHS), "adaptive")}
    rows: list[Row] = []
    settings = [(c, t) for c in CONCURRENCIES for t in TEMPERATURES]
    for concurrency, temperature in track(settings, description="measuring"):
        prompts = everything[: max(arguments.chats, concurrency)]
        for core in engines.values():  # warm-up
            measure(core, prompts[:concurrency], concurrency, temperature)
        rounds = [
            {
                name: measure(core, prompts, concurrency, temperature)
                for name, core in engines.items()
            }
            for _ in range(arguments.rounds)
        ]
        rows += [make_row(concurrency, temperature, name, rounds) for name in engines]
    print_table(rows)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
        command = f"python -m benchmarks.speculation --chats {arguments.chats} --rounds "
        result = {
            "command": f"{command}{arguments.rounds}",
            "machine": f"{machine}, torch {torch.__version__}",
            "rows": [asdict(row) for row in rows],
        }
        text = json.dumps(result, indent=2)
        (arguments.out / "speculation.json").write_text(text + "\n")
        plot(rows, arguments.out / "speculation.png")
    for miss in misses(rows):
        print(miss)
    return int(bool(misses(rows)))


if __name__ == "__main__":
    sys.exit(main())
