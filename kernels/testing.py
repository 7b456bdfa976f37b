"""Inputs for every operation, and how results compare: for conformance tests and benchmarks."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.reference.cache import write_latent
from leadline.kernels.reference.moe import permute
from leadline.kernels.reference.quant import FP8, FP8_MAX
from leadline.kernels.sampling import (
    AllowedTokens,
    BannedTokens,
    LogitBias,
    Penalties,
    SamplingBatch,
)
from leadline.kernels.types import BLOCK, QuantTensor, RouterConfig

FLOAT32_TOLERANCE = 1e-5

V3_ROUTER = RouterConfig("sigmoid", 4, 2, 4, "top2_sum", True, 2.5)
V2_ROUTER = RouterConfig("softmax", 4, 2, 4, "max", False, 1.0)
PLAIN_ROUTER = RouterConfig("softmax", 1, 1, 4, "max", False, 1.0)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value; NaN never passes.

    Infinities have to be the same ones.
    """
    if actual.shape != expected.shape:
        return math.inf
    is_infinite = expected.isinf()
    if bool((actual[is_infinite] != expected[is_infinite]).any()):
        return math.inf
    actual, expected = actual[~is_infinite], expected[~is_infinite]
    if expected.numel() == 0:
        return 0.0
    scale = expected.double().abs().max().clamp(min=1e-30)
    error = float((actual.double() - expected.double()).abs().max() / scale)
    return math.inf if math.isnan(error) else error


def random_quant(*shape: int) -> QuantTensor:
    """Random FP8 weights of scale 1 / sqrt(columns)."""
    blocks = (*shape[:-2], -(-shape[-2] // BLOCK), -(-shape[-1] // BLOCK))
    scale = (torch.rand(blocks) + 0.5) / (math.sqrt(shape[-1]) * 100)
    return QuantTensor((torch.randn(shape) * 100).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale)


def to_device(value: Any, device: str) -> Any:
    """Arguments of an operation with every tensor on a device; what is there already is shared."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(to_device(item, device) for item in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    moved = {name: to_device(item, device) for name, item in fields.items()}
    return dataclasses.replace(value, **moved)


@dataclass(slots=True)
class AttentionCase:
    """One step over a filled cache whose unused slots are poisoned with NaN."""

    meta: AttentionMeta
    cache: LatentCacheLayer
    projection: MLAProjection
    q_nope_THN: Tensor
    q_rope_THR: Tensor
    scale: float


def _poison(layout: LatentLayout, num_pages: int, page_size: int) -> Tensor:
    shape = (num_pages, page_size, layout.width)
    if layout.dtype == "fp8":
        return torch.full(shape, 0x7F, dtype=torch.uint8)  # NaN in e4m3, bfloat16 and float32
    return torch.full(shape, math.nan, dtype=layout.torch_dtype)


def attention_case(
    rows: Sequence[tuple[int, int]],
    *,
    heads: int = 4,
    latent: int = 128,
    rope: int = 16,
    nope: int = 32,
    value: int = 32,
    page_size: int = 16,
    dtype: str = "float32",
) -> AttentionCase:
    """`rows`: (cached tokens, new tokens) of each; pages are dealt in random order."""
    layout = LatentLayout(latent, rope, dtype)
    seq_lens = [cached + new for cached, new in rows]
    needed = [-(-length // page_size) for length in seq_lens]
    num_pages = sum(needed) + 2
    order = iter(torch.randperm(num_pages).tolist())
    tables = [[next(order) for _ in range(n)] for n in needed]
    cache = LatentCacheLayer(_poison(layout, num_pages, page_size), layout)
    slots: list[int] = []
    positions: list[int] = []
    for (cached, _), length, pages in zip(rows, seq_lens, tables, strict=True):
        row = [pages[p // page_size] * page_size + p % page_size for p in range(length)]
        everything = torch.tensor(row, dtype=torch.int64)
        write_latent(cache, torch.randn(length, latent), torch.randn(length, rope), everything)
        slots += row[cached:]
        positions += range(cached, length)
    width = max([len(t) for t in tables], default=0)
    meta = AttentionMeta(
        query_lens=[new for _, new in rows],
        seq_lens=seq_lens,
        page_table=torch.tensor([t + [0] * (width - len(t)) for t in tables], dtype=torch.int64),
        slots_T=torch.tensor(slots, dtype=torch.int64),
        positions_T=torch.tensor(positions, dtype=torch.int64),
    )
    projection = MLAProjection(
        torch.randn(heads, nope, latent) / math.sqrt(latent),
        torch.randn(heads, value, latent) / math.sqrt(latent),
    )
    num_new = len(slots)
    query = torch.randn(num_new, heads, nope), torch.randn(num_new, heads, rope)
    return AttentionCase(meta, cache, projection, *query, scale=(nope + rope) ** -0.5)


def run_attention(
    new_attention: Callable[..., Any], case: AttentionCase, first_slot: int
) -> Tensor:
    """`plan` and `run` of a `api.NewMLAAttention` on a case: o_THV."""
    attention = new_attention(scale=case.scale, page_size=case.cache.page_size)
    attention.plan(case.meta)
    output: Tensor = attention.run(
        case.q_nope_THN, case.q_rope_THR, case.cache, case.projection, first_slot
    )
    return output


def sampling_batch(
    num_rows: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    position: int = 0,
) -> SamplingBatch:
    """Equal parameters in all rows, seeds counting up from `seed`."""
    return SamplingBatch(
        temperature_B=torch.full((num_rows,), temperature),
        top_k_B=torch.full((num_rows,), top_k),
        top_p_B=torch.full((num_rows,), top_p),
        min_p_B=torch.full((num_rows,), min_p),
        seeds_B=torch.arange(seed, seed + num_rows),
        positions_B=torch.full((num_rows,), position),
        all_greedy=temperature == 0,
        no_cuts=top_k == 0 and top_p == 1 and min_p == 0,
    )


def ruled_batch(num_rows: int, vocab_size: int, **parameters: Any) -> SamplingBatch:
    """As `sampling_batch`, most rows with rules of their own at random, the last two with none."""
    batch = sampling_batch(num_rows, **parameters)
    ruled = torch.arange(max(0, num_rows - 2))
    num_ruled, num_words = len(ruled), -(-vocab_size // 32)
    words = torch.randint(-(2**31), 2**31 - 1, (num_ruled, num_words)).to(torch.int32)
    batch.allowed = AllowedTokens(ruled, words)
    banned = torch.rand(num_ruled, vocab_size) < 0.1
    batch.banned = BannedTokens(*banned.nonzero().unbind(1))
    biased = torch.rand(num_ruled, vocab_size) < 0.3
    rows, tokens = biased.nonzero().unbind(1)
    batch.bias = LogitBias(rows, tokens, 3 * torch.randn(len(rows)))
    counts = torch.randint(0, 4, (num_ruled, vocab_size)) * (
        torch.rand(num_ruled, vocab_size) < 0.4
    )
    batch.penalties = Penalties(
        rows_R=ruled,
        repetition_R=0.5 + torch.rand(num_ruled),
        frequency_R=torch.randn(num_ruled),
        presence_R=torch.randn(num_ruled),
        counts_RV=counts.to(torch.int32),
        in_prompt_RV=torch.rand(num_ruled, vocab_size) < 0.3,
    )
    forced = torch.randint(0, vocab_size, (num_rows,))
    batch.forced_B = torch.where(torch.rand(num_rows) < 0.2, forced, -1)
    return batch


def batch_rows(batch: SamplingBatch, part: slice) -> SamplingBatch:
    """The batch of some of a batch's rows alone."""
    num_rows = len(batch.temperature_B)
    begin, end, _ = part.indices(num_rows)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if field.name.endswith("_B") and value is not None:
            fields[field.name] = value[part].clone()
        elif dataclasses.is_dataclass(value):
            fields[field.name] = _rules_of_rows(value, begin, end)
    return dataclasses.replace(batch, **fields)


def _rules_of_rows(rules: Any, begin: int, end: int) -> Any:
    """One optional part of a batch, for the rows from `begin` to `end` only; rows count anew."""
    names = [field.name for field in dataclasses.fields(rules)]
    rows = getattr(rules, names[0])
    chosen = (rows >= begin) & (rows < end)
    values = [getattr(rules, name)[chosen].clone() for name in names]
    values[0] -= begin
    return type(rules)(*values)


def _grouped_inputs(num_tokens: int, *, fp8: bool) -> tuple[Any, ...]:
    """Rows of a random routing among 8 experts of width 96 over 160 values."""
    ids = torch.randint(0, 8, (num_tokens, 2))
    rows, permutation = permute(torch.randn(num_tokens, 160), ids, 8)
    make = random_quant if fp8 else lambda *shape: torch.randn(shape) / math.sqrt(shape[-1])
    return rows, permutation.counts, make(8, 192, 160), make(8, 160, 96)


def _unpermute_inputs(num_tokens: int) -> tuple[Any, ...]:
    ids = torch.randint(0, 8, (num_tokens, 3))
    rows, permutation = permute(torch.randn(num_tokens, 24), ids, 8)
    return rows, permutation, torch.rand(num_tokens, 3)


def _sampling_inputs(rows: Sequence[int]) -> list[tuple[Any, ...]]:
    """Logits, with ties, and batches with and without cuts and rules."""
    return [
        (
            torch.randn(n, 50).round(decimals=1),
            make(n, temperature=t, top_k=k, top_p=p, min_p=m),
        )
        for n in rows
        for t, k, p, m in ((0.0, 0, 1.0, 0.0), (0.8, 0, 1.0, 0.0), (1.3, 9, 0.8, 0.05))
        for make in (sampling_batch, lambda n, **parameters: ruled_batch(n, 50, **parameters))
    ]


def operation_inputs() -> dict[str, list[tuple[Any, ...]]]:
    """For each stateless operation, arguments that cover ragged sizes, zero rows and ties."""
    rows = (0, 1, 3, 8, 37)
    logits = [torch.randn(n, 16) for n in rows] + [torch.zeros(5, 16)]
    return {
        "rms_norm": [(torch.randn(n, 72), torch.rand(72) + 0.5, 1e-6) for n in rows],
        "add_rms_norm": [
            (torch.randn(n, 72), torch.randn(n, 72), torch.rand(72) + 0.5, 1e-6) for n in rows
        ],
        "apply_rope": [(torch.randn(n, 3, 16), *torch.randn(2, n, 8)) for n in rows],
        "linear": [(torch.randn(n, 160), torch.randn(72, 160)) for n in rows],
        "linear_fp8": [(torch.randn(n, 160), random_quant(200, 160)) for n in rows],
        "quantize_fp8": [(torch.randn(n, 160), s) for n in rows for s in ("fp32", "ue8m0")],
        "swiglu": [(torch.randn(n, 96),) for n in rows],
        "vocab_logits": [(torch.randn(n, 160), torch.randn(72, 160)) for n in rows],
        "router_logits": [(torch.randn(n, 160), torch.randn(16, 160)) for n in rows],
        "route": [
            (x, bias, config)
            for x in logits
            for bias in (None, torch.randn(16) / 10)
            for config in (V3_ROUTER, V2_ROUTER, PLAIN_ROUTER)
        ],
        "permute": [(torch.randn(n, 24), torch.randint(0, 8, (n, 3)), 8) for n in rows],
        "grouped_mlp": [_grouped_inputs(n, fp8=fp8) for n in rows for fp8 in (False, True)],
        "unpermute": [_unpermute_inputs(n) for n in rows],
        "merge_attention": [
            (torch.randn(n, 3, 8), torch.randn(n, 3), torch.randn(n, 3, 8), torch.randn(n, 3))
            for n in rows
        ],
        "process_logits": _sampling_inputs(rows),
        "sample": _sampling_inputs(rows),
        "sample_shard": [
            (torch.randn(n, 50).round(decimals=1), sampling_batch(n, temperature=t), first_id)
            for n in rows
            for t in (0.0, 0.8)
            for first_id in (0, 64_640)
        ],
        "merge_shards": [
            (torch.randn(s, n).round(decimals=1), torch.randint(0, 50, (s, n)))
            for n in rows
            for s in (1, 4)
        ],
        "count_accepted": [
            (
                *torch.randint(0, 2, (2, n, width)),
                torch.randint(0, width + 1, (n,)),
            )
            for n in rows
            for width in (0, 1, 5)
        ],
        "token_logprobs": [
            (torch.randn(n, 50).round(decimals=1), torch.randint(0, 50, (n,)), num_top)
            for n in rows
            for num_top in (0, 1, 7, 60)
        ],
    }
