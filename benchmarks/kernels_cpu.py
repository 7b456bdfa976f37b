"""The native kernels on this CPU: `python -m benchmarks.kernels_cpu [--out DIR] [--engine]`.

For each operation and shape, of the built-in model, of models of 98M and 1.29B parameters and of a
layer of DeepSeek-V3: the time of the native kernel, of the batch-invariant one in torch (`tiled`)
and of the reference; what the native one reads and computes a second, as shares of what this
machine copies and multiplies in the same run. Each result is compared with the reference's first:
a wrong one ends the run. `--engine` adds the built-in model's tokens a second, with the kernels in
torch and with the native ones, for one request at a time and for eight.
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.engine_speed import measure_engine
from leadline.kernels.native import library
from leadline.kernels.select import Implementation, implementations
from leadline.kernels.testing import attention_case, random_quant, relative_error, run_attention

SECONDS = 0.12  # spent on each time
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
ROWS = (1, 8, 32, 256)
# N, K of the projections that take most of a step.
LINEARS = {
    "built-in": {"q_b": (192, 128), "o": (256, 128), "dense gate_up": (1536, 256)},
    "98M": {"o": (512, 1024), "dense gate_up": (4096, 512)},
    "1.29B": {"o": (1024, 2048), "dense gate_up": (8192, 1024)},
    "V3": {"q_b / 8": (3072, 1536), "o / 8": (7168, 2048), "shared gate_up": (4096, 7168)},
}
# experts, top-k, hidden size, expert width.
EXPERTS = {"built-in": (16, 4, 256, 48), "98M": (32, 4, 512, 256), "1.29B": (64, 8, 1024, 512)}
# heads, latent, rope, nope, value.
HEADS = {"built-in": (4, 128, 16, 32, 32), "98M": (8, 512, 64, 128, 128)}


@dataclass(slots=True)
class Row:
    """One operation and shape; times in microseconds.

    Attributes:
        bandwidth_share: bytes of weights or of cache a second, of what the machine copies (reads
            and writes) between main memory; above 1 where a core's own cache holds them.
        compute_share: floating-point operations a second, of what it can multiply.
    """

    model: str
    operation: str
    shape: str
    native_us: float
    tiled_us: float
    reference_us: float
    gigabytes_per_s: float
    gigaflops: float
    bandwidth_share: float = 0.0
    compute_share: float = 0.0


@dataclass(slots=True)
class Case:
    """`run` takes an implementation; `num_bytes` are read once, `flops` computed."""

    model: str
    operation: str
    shape: str
    run: Callable[[Implementation], torch.Tensor]
    num_bytes: float
    flops: float


def best_time(function: Callable[[], Any], spent_s: float = SECONDS) -> float:
    """Seconds of the fastest of as many calls as fit."""
    function()
    best, until = math.inf, time.perf_counter() + spent_s
    while True:
        started = time.perf_counter()
        function()
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended > until:
            return best


def machine_limits() -> tuple[float, float]:
    """Bytes copied (read and written) and float32 operations in registers, a second."""
    source = torch.zeros(1 << 28, dtype=torch.uint8)
    target = torch.zeros_like(source)
    copied = best_time(lambda: target.copy_(source), 1.0)
    num_threads, rounds = torch.get_num_threads(), 200_000
    multiplied = best_time(lambda: library.library().multiply_alone(rounds, num_threads), 1.0)
    return 2 * source.nbytes / copied, rounds * 384 * num_threads / multiplied


class OtherWork:
    """Cores that other processes took since this was made: they make every figure worse."""

    def __init__(self) -> None:
        self._busy_s, self._own_s, self._started_s = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        user, nice, system, *_ = Path("/proc/stat").read_text().split()[1:]
        ticks = int(user) + int(nice) + int(system)
        return ticks / os.sysconf("SC_CLK_TCK"), time.process_time(), time.perf_counter()

    def cores(self) -> float:
        """Their mean number."""
        busy_s, own_s, now_s = self._now()
        taken_s = (busy_s - self._busy_s) - (own_s - self._own_s)
        return round(max(taken_s, 0.0) / (now_s - self._started_s), 2)


def linear_cases() -> Iterator[Case]:
    """Projections of float32, bfloat16 (activations as well) and FP8 weights."""
    for model, shapes in LINEARS.items():
        for name, (n, k) in shapes.items():
            quant = random_quant(n, k)
            exact = quant.dequantize()
            for operation, weight, dtype in (
                ("linear", exact, torch.float32),
                ("linear", exact.bfloat16(), torch.bfloat16),
                ("linear_fp8", quant, torch.float32),
            ):
                for rows in ROWS:
                    x = torch.randn(rows, k).to(dtype)
                    suffix = " in bfloat16" if dtype == torch.bfloat16 else ""
                    yield Case(
                        model,
                        operation,
                        f"{name} {rows} x {n} x {k}{suffix}",
                        lambda kernel, x=x, w=weight: kernel.function(x, w),
                        weight.nbytes,
                        2 * rows * n * k,
                    )


def expert_cases() -> Iterator[Case]:
    """The experts of FP8 weights."""
    for model, (num_experts, top_k, hidden, width) in EXPERTS.items():
        weights = (
            random_quant(num_experts, 2 * width, hidden),
            random_quant(num_experts, hidden, width),
        )
        for tokens in ROWS:
            ids = torch.rand(tokens, num_experts).argsort(-1)[:, :top_k]
            counts = torch.bincount(ids.flatten(), minlength=num_experts)
            x = torch.randn(tokens * top_k, hidden)
            yield Case(
                model,
                "grouped_mlp",
                f"{tokens} tokens, {top_k} of {num_experts} x {hidden} x {width}",
                lambda kernel, x=x, counts=counts, w=weights: kernel.function(x, counts, *w),
                int((counts > 0).sum()) * 3 * hidden * width,
                tokens * top_k * 6 * hidden * width,
            )


def attention_cases() -> Iterator[Case]:
    """A token after 1,000, eight of these, and a prompt."""
    for model, (heads, latent, rope, nope, value) in HEADS.items():
        for rows in ([(1000, 1)], [(1000, 1)] * 8, [(0, 256)]):
            case = attention_case(
                rows,
                heads=heads,
                latent=latent,
                rope=rope,
                nope=nope,
                value=value,
                page_size=64,
            )
            seen = sum(new * cached + new * (new + 1) / 2 for cached, new in rows)
            slots = sum(cached + new for cached, new in rows)
            tokens = sum(new for _, new in rows)
            projected = tokens * heads * latent * (nope + value)
            yield Case(
                model,
                "mla_attention",
                f"{len(rows)} x {rows[0][1]} after {rows[0][0]}, {heads} heads",
                lambda kernel, case=case: run_attention(kernel.function, case, 0),
                4 * slots * (latent + rope),
                2 * (seen * heads * (2 * latent + rope) + projected),
            )


def measure(case: Case, copied: float, multiplied: float) -> Row:
    """Compare, then time all implementations of a case.

    Raises:
        ValueError: the native kernel is wrong.
    """
    candidates = {kernel.name: kernel for kernel in implementations()[case.operation]}
    table = {name: candidates[name] for name in ("native", "tiled", "reference")}
    result = case.run(table["native"])
    error = relative_error(result, case.run(table["reference"]))
    if error > TOLERANCE[result.dtype]:
        raise ValueError(f"{case.operation} {case.shape}: relative error {error:.1e}")
    seconds = {name: best_time(lambda k=kernel: case.run(k)) for name, kernel in table.items()}
    num_bytes, flops = case.num_bytes / seconds["native"], case.flops / seconds["native"]
    return Row(
        case.model,
        case.operation,
        case.shape,
        *(round(1e6 * time_s, 1) for time_s in seconds.values()),
        round(num_bytes / 1e9, 2),
        round(flops / 1e9, 1),
        round(num_bytes / copied, 3),
        round(flops / multiplied, 3),
    )


def print_table(rows: list[Row]) -> None:
    """All rows, as a table."""
    table = Table(title=f"native kernels ({library.library().instructions})")
    for name in ("model", "operation", "shape"):
        table.add_column(name)
    for name in ("us", "x tiled", "x reference", "GB/s", "of copy", "GFLOP/s", "of peak"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *(row.model, row.operation, row.shape, f"{row.native_us:.0f}"),
            f"{row.tiled_us / row.native_us:.1f}",
            f"{row.reference_us / row.native_us:.1f}",
            *(f"{row.gigabytes_per_s:.1f}", f"{row.bandwidth_share:.0%}"),
            *(f"{row.gigaflops:.0f}", f"{row.compute_share:.0%}"),
        )
    Console(width=125).print(table)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for kernels_cpu.json")
    parser.add_argument("--engine", action="store_true", help="the built-in model's speed as well")
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="fewer than cores where other work runs: torch's threads wait for each other",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if library.LIBRARY is None:
        print(f"no native kernels: {library.MISSING}", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    others = OtherWork()
    copied, multiplied = machine_limits()
    print(f"copies {copied / 1e9:.1f} GB/s, multiplies {multiplied / 1e9:.0f} GFLOP/s")
    cases = [*linear_cases(), *expert_cases(), *attention_cases()]
    rows = [measure(case, copied, multiplied) for case in cases]
    print_table(rows)
    result = {
        "command": f"python -m benchmarks.kernels_cpu --engine --threads {arguments.threads}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "instructions": library.library().instructions,
        "cores_taken_by_others": others.cores(),
        "copy_gigabytes_per_s": round(copied / 1e9, 1),
        "peak_gigaflops": round(multiplied / 1e9, 1),
        "rows": [asdict(row) for row in rows],
    }
    if arguments.engine:
        others = OtherWork()
        result["engine"] = measure_engine(arguments.threads)
        result["cores_taken_by_others_then"] = others.cores()
    print({name: value for name, value in result.items() if name.startswith("cores")})
    if arguments.out:
        text = json.dumps(result, indent=2) + "\n"
        (arguments.out / "kernels_cpu.json").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
