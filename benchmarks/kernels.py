"""Each operation at the shapes of DeepSeek-V3 on one GPU: `python -m benchmarks.kernels`.

Time, TFLOP/s, GB/s and the share of what this GPU was measured to do at most, for every
implementation that the platform can use; the result of the timed call is compared with the
reference in the same run, and a wrong one fails the run. L2 is flushed between calls.

It has not been run on a GPU yet: no figure of it is published.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from leadline.kernels.reference.linear import linear, linear_fp8_1x128, linear_fp8_1x128_ue8m0
from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import Platform, implementations
from leadline.kernels.testing import (
    attention_case,
    random_quant,
    relative_error,
    run_attention,
    sampling_batch,
    to_device,
)
from leadline.kernels.types import RouterConfig

V3_ROUTER = RouterConfig("sigmoid", 8, 4, 8, "top2_sum", True, 2.5)
LINEARS = {  # output and input features
    "q_a + kv_a": (2112, 7168),
    "q_b": (24576, 1536),
    "o": (7168, 16384),
    "shared gate + up": (4096, 7168),
    "shared down": (7168, 2048),
}
TOLERANCE = 2e-2  # of the largest value: bfloat16 results, FP8 sums of 14 bits


@dataclass(slots=True)
class Case:
    """One operation at one shape: what it computes and moves at least."""

    operation: str
    shape: str
    arguments: tuple[Any, ...]
    flops: float
    num_bytes: float


@dataclass(slots=True)
class Row:
    """One implementation at one shape."""

    operation: str
    shape: str
    implementation: str
    microseconds: float
    tflops: float
    gb_per_s: float
    share: float
    error: float
    is_right: bool


@dataclass(slots=True)
class Limits:
    """What this GPU does at most: one large copy, one large product of each kind."""

    gb_per_s: float
    bf16_tflops: float
    fp8_tflops: float


def time_us(call: Callable[[], Any]) -> float:
    """Median of a call, with the L2 cache flushed before each."""
    from triton.testing import do_bench

    return float(do_bench(call, return_mode="median")) * 1e3


def measure_limits(device: str) -> Limits:
    """Copies 1 GiB, multiplies 8192 x 8192 in bfloat16 and in FP8."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    size = 8192
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    a8, one = a.to(torch.float8_e4m3fn), torch.ones((), device=device)

    def fp8() -> Tensor:
        return torch._scaled_mm(a8, a8.T, one, one, out_dtype=torch.bfloat16)

    flops = 2 * size**3
    return Limits(
        gb_per_s=2 * 2**30 / time_us(lambda: target.copy_(source)) / 1e3,
        bf16_tflops=flops / time_us(lambda: a @ a.T) / 1e6,
        fp8_tflops=flops / time_us(fp8) / 1e6,
    )


def linear_cases(tokens: list[int]) -> Iterator[Case]:
    """`linear_fp8`, and `linear` of the same shapes."""
    for name, (n, k) in LINEARS.items():
        weight = random_quant(n, k)
        dense = torch.randn(n, k).bfloat16()
        for m in tokens:
            moved = n * k + 2 * m * (n + k)
            x = torch.randn(m, k).bfloat16()
            yield Case("linear_fp8", f"{name}, {m} tokens", (x, weight), 2 * m * n * k, moved)
            moved += n * k
            yield Case("linear", f"{name}, {m} tokens", (x, dense), 2 * m * n * k, moved)


def expert_cases(tokens: list[int], num_experts: int = 32) -> Iterator[Case]:
    """Router and the experts of one of 8 ranks, each with its share of the tokens."""
    d, f = 7168, 2048
    gate_up, down = random_quant(num_experts, 2 * f, d), random_quant(num_experts, d, f)
    for m in tokens:
        logits = torch.randn(m, 256)
        yield Case("route", f"{m} tokens", (logits, torch.randn(256), V3_ROUTER), 0, 4 * 256 * m)
        ids = torch.rand(m, num_experts).topk(8).indices
        x = torch.randn(m, d).bfloat16()
        moved = 2 * m * d * 9
        yield Case("permute", f"{m} tokens", (x, ids, num_experts), 0, moved)
        counts = torch.bincount(ids.flatten(), minlength=num_experts)
        rows = torch.randn(8 * m, d).bfloat16()
        weights = int((counts > 0).sum()) * 3 * d * f
        arguments = rows, counts, gate_up, down
        moved = weights + 4 * rows.numel()
        yield Case("grouped_mlp", f"{8 * m} rows", arguments, 6 * 8 * m * d * f, moved)


def small_cases(tokens: list[int]) -> Iterator[Case]:
    """What moves memory."""
    d, f, heads = 7168, 2048, 128
    for m in tokens:
        x, weight = torch.randn(m, d).bfloat16(), torch.rand(d).bfloat16()
        yield Case("rms_norm", f"{m} tokens", (x, weight, 1e-6), 0, 4 * m * d)
        yield Case("add_rms_norm", f"{m} tokens", (x, x + 1, weight, 1e-6), 0, 8 * m * d)
        yield Case("quantize_fp8", f"{m} tokens", (x, "fp32"), 0, 3 * m * d)
        gate_up = torch.randn(m, 2 * f).bfloat16()
        yield Case("swiglu", f"{m} tokens", (gate_up,), 0, 6 * m * f)
        rotated = torch.randn(m, heads, 64).bfloat16(), *torch.randn(2, m, 32)
        yield Case("apply_rope", f"{m} tokens", rotated, 0, 4 * m * heads * 64)
        logits, batch = torch.randn(m, 129_280), sampling_batch(m)
        yield Case("sample", f"{m} rows", (logits, batch), 0, 4 * m * 129_280)


def sampling_cases(tokens: list[int]) -> Iterator[Case]:
    """From hidden states to tokens, at a vocabulary of 129,280."""
    d, vocab = 7168, 129_280
    head, gate = torch.randn(vocab, d).bfloat16(), torch.randn(256, d)
    for m in (m for m in tokens if m <= 512):
        x, logits = torch.randn(m, d).bfloat16(), torch.randn(m, vocab)
        moved = 2 * vocab * d + 4 * m * vocab
        yield Case("vocab_logits", f"{m} rows", (x, head), 2 * m * vocab * d, moved)
        yield Case("router_logits", f"{m} tokens", (x, gate), 2 * m * 256 * d, 4 * 256 * d)
        cut = sampling_batch(m, top_k=50, top_p=0.95)
        yield Case("sample", f"{m} rows, cut", (logits, cut), 0, 4 * m * vocab)
        yield Case("process_logits", f"{m} rows, cut", (logits, cut), 0, 8 * m * vocab)
        ids = torch.randint(0, vocab, (m,))
        yield Case("token_logprobs", f"{m} rows, top 5", (logits, ids, 5), 0, 4 * m * vocab)


def attention_cases() -> Iterator[Case]:
    """128 heads: decode with and without a draft, prefill alone and after cached tokens."""
    shapes = {"32 x 4096 + 1": (32, 4095, 1), "32 x 4096 + 2": (32, 4094, 2)}
    shapes |= {"1 x 4096": (1, 0, 4096), "1 x 8192 + 2048": (1, 8192, 2048)}
    sizes = {"heads": 128, "latent": 512, "rope": 64, "nope": 128, "value": 128, "page_size": 64}
    for name, (rows, cached, new) in shapes.items():
        for dtype in ("bfloat16", "fp8"):
            case = attention_case([(cached, new)] * rows, dtype=dtype, **sizes)
            case.q_nope_THN = case.q_nope_THN.bfloat16()
            case.q_rope_THR = case.q_rope_THR.bfloat16()
            keys = rows * new * (cached + (new + 1) / 2)
            width = 576 + 512 if new <= 8 else 192 + 128
            moved = rows * (cached + new) * case.cache.layout.bytes_per_token
            yield Case("mla_attention", f"{name}, {dtype}", (case,), 2 * keys * 128 * width, moved)


def reference(operation: str, formats: str) -> Callable[..., Any]:
    """What an implementation of these formats is compared with."""
    if formats.startswith("activations fp8"):
        multiply = linear_fp8_1x128_ue8m0 if "ue8m0" in formats else linear_fp8_1x128
        grouped = GroupedMLP(linear, multiply)
        return {"linear_fp8": multiply, "grouped_mlp": grouped}[operation]
    return next(c.function for c in implementations()[operation] if c.name == "reference")


def first_tensor(value: Any) -> Tensor:
    """The result, or the first of several."""
    return value if isinstance(value, Tensor) else value[0]


def measure(case: Case, limits: Limits, device: str) -> Iterator[Row]:
    """Every implementation that the platform can use."""
    arguments = to_device(case.arguments, device)
    for candidate in implementations()[case.operation]:
        if candidate.reject(Platform(device=device)) is not None:
            continue
        function = candidate.function
        expected_by = reference(case.operation, candidate.formats)
        if case.operation == "mla_attention":
            call = attention_call(function, *arguments)
            expected = run_attention(ReferenceMLA, arguments[0], 0)
        else:
            call = lambda f=function: f(*arguments)  # noqa: E731
            expected = first_tensor(expected_by(*arguments))
        error = relative_error(first_tensor(call()).float(), expected.float())
        us = time_us(call)
        tflops, gb_per_s = case.flops / us / 1e6, case.num_bytes / us / 1e3
        is_fp8 = candidate.formats.startswith("activations fp8")
        peak = limits.fp8_tflops if is_fp8 else limits.bf16_tflops
        share = max(tflops / peak, gb_per_s / limits.gb_per_s)
        figures = (us, tflops, gb_per_s, share, error, error < TOLERANCE)
        yield Row(case.operation, case.shape, candidate.name, *figures)


def attention_call(new_attention: Callable[..., Any], case: Any) -> Callable[[], Tensor]:
    """`run` of one layer, planned once."""
    attention = new_attention(scale=case.scale, page_size=case.cache.page_size)
    attention.plan(case.meta)
    query = case.q_nope_THN, case.q_rope_THR
    return lambda: attention.run(*query, case.cache, case.projection)


def print_rows(rows: list[Row], limits: Limits) -> None:
    """The table."""
    table = Table(*Row.__slots__, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in asdict(row).values())
        )
    console = Console(width=160)
    console.print(table)
    console.print(limits)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to a file")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 64, 128, 512, 4096])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("needs a CUDA device")
    torch.manual_seed(0)
    limits = measure_limits("cuda")
    cases = [linear_cases, expert_cases, small_cases, sampling_cases]
    rows = [
        row
        for make in cases
        for case in make(options.tokens)
        for row in measure(case, limits, "cuda")
    ]
    rows += [row for case in attention_cases() for row in measure(case, limits, "cuda")]
    print_rows(rows, limits)
    if options.json:
        device = torch.cuda.get_device_name()
        figures = {"device": device, "torch": torch.__version__, "limits": asdict(limits)}
        figures["rows"] = [asdict(row) for row in rows]
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    wrong = [row for row in rows if not row.is_right]
    if wrong:
        sys.exit(f"{len(wrong)} of {len(rows)} results are wrong")


if __name__ == "__main__":
    main()
