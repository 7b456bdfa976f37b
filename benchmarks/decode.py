"""Decoding on this CPU: `python -m benchmarks.decode --models DIR [--out DIR]`.

For the built-in model, which answers held-out chats one at a time at several depths of drafts, and
for random models of 98M and 1.29B parameters (written to DIR, 1.8 GB), which go on with a prompt of
128 tokens: tokens a second; the runner's own time a step, which is what a step takes beyond the
calls of the native library; of the random models also the bytes of weights that a token reads, a
second, as a share of what this machine reads from memory. All of it on a quiet machine, and beside
a process that keeps one core busy: threads that wait for each other fare worst there.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.demo_model.chat_format import render_prompt
from benchmarks.demo_model.chats import build_corpus
from benchmarks.peer_model import SIZES, active_bytes, config_of, write_fp8
from benchmarks.peers import read_bandwidth
from benchmarks.quiet import read_times
from leadline.engine import build
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.kernels.native import library
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

ROUNDS = 5
OUTPUT_TOKENS = 64
BUSY = "while True: pass"
DEPTHS = (0, 1, 2, 3)


@dataclass(slots=True)
class Row:
    """One model at one depth of drafts.

    Attributes:
        tokens_per_s: median over rounds, prompts included for the built-in model.
        best_tokens_per_s: of them.
        busy_tokens_per_s: median beside a busy core.
        step_ms: median of a step of a token and its drafts.
        own_ms: of it outside of the native library.
        acceptance_length: tokens of a step.
        read_share: bytes of weights a second, of what memory gives; None if they fit in a cache.
    """

    model: str
    drafts: int
    threads: int
    tokens_per_s: float
    best_tokens_per_s: float
    busy_tokens_per_s: float
    step_ms: float
    own_ms: float
    acceptance_length: float
    read_share: float | None = None


class Timed:
    """Times what the runner and the native library take; stands in for both."""

    def __init__(self, core: EngineCore) -> None:
        worker: Any = core._executor._worker  # type: ignore[attr-defined]
        self._runner = worker._runner
        self._run = self._runner.run
        self._runner.run = self.run
        self._native_s = 0.0
        self.steps: list[tuple[int, float, float]] = []
        found = library.library()
        self._functions = {name: getattr(found, name) for name in library._SIGNATURES}
        for name, function in self._functions.items():
            setattr(found, name, self._wrap(function))

    def close(self) -> None:
        """Time no more."""
        for name, function in self._functions.items():
            setattr(library.library(), name, function)

    def _wrap(self, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            started_s = time.perf_counter()
            result = function(*arguments)
            self._native_s += time.perf_counter() - started_s
            return result

        return call

    def run(self, plan: Any) -> Any:
        """A step."""
        self._native_s, started_s = 0.0, time.perf_counter()
        output = self._run(plan)
        step_s = time.perf_counter() - started_s
        self.steps.append((output.num_tokens, step_s, step_s - self._native_s))
        return output


def open_engine(path: Path, drafts: int, num_threads: int) -> EngineCore:
    """An engine that drafts to one depth."""
    config = EngineConfig(
        speculative_tokens=drafts,
        kv_tokens=8_192,
        max_model_len=1_024,
        prefix_caching=False,
        num_threads=num_threads,
    )
    resolved, _ = resolve(config, read_model_config(path), cpu_facts(), model_path=str(path))
    core, _ = build.build_core(
        msgspec.json.encode(resolved),
        lambda stage: None,
        make_policy=lambda most: DraftPolicy(most, adaptive=False),
    )
    return core


def answer(core: EngineCore, prompts: list[list[int]], *, ends: tuple[int, ...]) -> float:
    """Answer all prompts one after the other; tokens a second."""
    before, started_s = core.stats().generation_tokens, time.perf_counter()
    for i, prompt in enumerate(prompts):
        params = SamplingParams(
            seed=i, max_tokens=OUTPUT_TOKENS, temperature=0.0, eos_token_ids=ends
        )
        core.submit(EngineRequest(request_id=str(i), prompt_ids=prompt, params=params))
        while core.has_work():
            core.step()
    return (core.stats().generation_tokens - before) / (time.perf_counter() - started_s)


@contextmanager
def busy_core() -> Iterator[None]:
    """Another process computes all the while."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(name: str, path: Path, prompts: list[list[int]], drafts: int, num_threads: int) -> Row:
    """A model's row; `read_share` is left to the caller."""
    core = open_engine(path, drafts, num_threads)
    ends = () if name in SIZES else (1,)
    answer(core, prompts, ends=ends)
    speeds = [answer(core, prompts, ends=ends) for _ in range(ROUNDS)]
    with busy_core():
        busy = [answer(core, prompts, ends=ends) for _ in range(ROUNDS)]
    before = core.stats()
    timed = Timed(core)
    answer(core, prompts, ends=ends)
    timed.close()
    after = core.stats()
    steps = [step for step in timed.steps if 0 < step[0] <= 1 + drafts]
    tried = after.num_drafts - before.num_drafts
    accepted = after.num_accepted_tokens - before.num_accepted_tokens
    core.close()
    return Row(
        model=name,
        drafts=drafts,
        threads=num_threads,
        tokens_per_s=round(statistics.median(speeds), 1),
        best_tokens_per_s=round(max(speeds), 1),
        busy_tokens_per_s=round(statistics.median(busy), 1),
        step_ms=round(1e3 * statistics.median(step[1] for step in steps), 3),
        own_ms=round(1e3 * statistics.median(step[2] for step in steps), 3),
        acceptance_length=round(1 + accepted / tried, 2) if tried else 1.0,
    )


def built_in_rows(num_threads: int) -> Iterator[Row]:
    """The built-in model, which answers eight chats."""
    path = resolve_model("leadline-demo")
    tokenizer = Tokenizer.from_dir(path)
    chats = build_corpus().heldout_chats(8, seed=2, kind="fact")
    prompts = [tokenizer.encode(render_prompt(heldout.chat)) for heldout in chats]
    for drafts in DEPTHS:
        yield measure("built-in", path, prompts, drafts, num_threads)


def random_rows(folder: Path, num_threads: int) -> Iterator[Row]:
    """Random models, whose drafts are worth nothing."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(2, 16_000, (128,), generator=generator).tolist()
    for size in SIZES:
        path = write_fp8(folder / f"{size}-fp8", config_of(size))
        row = measure(size, path, [prompt], 0, num_threads)
        read = active_bytes(config_of(size), 1.0) / (row.step_ms / 1e3)
        row.read_share = round(read / read_bandwidth(), 3)
        yield row


def print_table(rows: list[Row]) -> None:
    """All rows, as a table."""
    table = Table(title=f"decoding ({library.library().instructions})")
    names = ("model", "drafts", "tokens/s", "best", "beside a busy core", "step, ms", "own, ms")
    for column in (*names, "tokens a step", "of bandwidth"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            *(row.model, str(row.drafts), f"{row.tokens_per_s:.0f}"),
            *(f"{row.best_tokens_per_s:.0f}", f"{row.busy_tokens_per_s:.0f}"),
            *(f"{row.step_ms:.2f}", f"{row.own_ms:.2f}", f"{row.acceptance_length:.2f}"),
            "" if row.read_share is None else f"{row.read_share:.0%}",
        )
    Console(width=125).print(table)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="folder for the random models; none without")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="folder for decode.json")
    arguments = parser.parse_args()
    began = read_times()
    rows = list(built_in_rows(arguments.threads))
    if arguments.models:
        rows += random_rows(arguments.models, arguments.threads)
    print_table(rows)
    result = {
        "command": f"python -m benchmarks.decode --models DIR --threads {arguments.threads}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "cores_taken_by_others": round(began.others(read_times()), 2),
        "read_gigabytes_per_s": round(read_bandwidth() / 1e9, 1),
        "rows": [asdict(row) for row in rows],
    }
    print({name: value for name, value in result.items() if name != "rows"})
    if arguments.out:
        text = json.dumps(result, indent=2) + "\n"
        (arguments.out / "decode.json").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
