"""What is flagged batch-invariant is: rows alone and rows in a batch have the same bits."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.sampling import gumbel_noise
from leadline.kernels.select import Implementation, Platform, implementations
from leadline.kernels.testing import (
    PLAIN_ROUTER,
    V2_ROUTER,
    V3_ROUTER,
    AttentionCase,
    attention_case,
    batch_rows,
    random_quant,
    ruled_batch,
    run_attention,
    sampling_batch,
)

NUM_ROWS = 41
PARTS = [
    *(slice(i, i + 1) for i in range(NUM_ROWS)),
    slice(0, 2),
    slice(3, 11),
    slice(5, 22),
    slice(1, NUM_ROWS),
]
TABLE = {
    operation: [c for c in candidates if c.batch_invariant and c.reject(Platform()) is None]
    for operation, candidates in implementations().items()
}


def flagged(*operations: str) -> Any:
    """Every flagged implementation of these operations."""
    cases = [
        pytest.param(operation, candidate, id=f"{operation}-{candidate.name}")
        for operation in operations
        for candidate in TABLE[operation]
    ]
    return pytest.mark.parametrize(("operation", "candidate"), cases)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rowwise_inputs(dtype: torch.dtype) -> dict[str, list[tuple[list[Any], list[Any]]]]:
    """Per operation (arguments with a row for each token, the others); odd widths among them."""

    def rows(*shape: int) -> torch.Tensor:
        return torch.randn(NUM_ROWS, *shape).to(dtype)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(NUM_ROWS, *shape)

    norms = (5, 64, 72, 1027)
    products = [(1, 5), (3, 7), (72, 160), (200, 64), (512, 96), (33, 1030)]
    biases = (None, torch.randn(16) / 10)
    routers = (V3_ROUTER, V2_ROUTER, PLAIN_ROUTER)
    return {
        "rms_norm": [([rows(n)], [torch.rand(n), 1e-6]) for n in norms],
        "add_rms_norm": [([rows(n), rows(n)], [torch.rand(n), 1e-6]) for n in norms],
        "apply_rope": [
            ([rows(h, r), some(r // 2), some(r // 2)], []) for h, r in ((1, 6), (3, 64))
        ],
        "linear": [([rows(k)], [torch.randn(n, k).to(dtype)]) for n, k in products],
        "vocab_logits": [([rows(k)], [torch.randn(n, k).to(dtype)]) for n, k in products],
        "router_logits": [([rows(k)], [torch.randn(n, k)]) for n, k in ((16, 64), (13, 160))],
        "linear_fp8": [([rows(k)], [random_quant(n, k)]) for n, k in ((40, 64), (200, 160))],
        "quantize_fp8": [([rows(n)], [f]) for n in (5, 128, 300) for f in ("fp32", "ue8m0")],
        "swiglu": [([rows(2 * n)], []) for n in (1, 5, 40, 129)],
        "route": [([some(16)], [bias, config]) for bias in biases for config in routers],
        "count_accepted": [
            (
                [*torch.randint(0, 2, (2, NUM_ROWS, 4)), torch.randint(0, 5, (NUM_ROWS,))],
                [],
            )
        ],
        "merge_attention": [([some(h, 5), some(h), some(h, 5), some(h)], []) for h in (1, 3)],
    }


ROWWISE = tuple(rowwise_inputs(torch.float32))
TOGETHER = ("permute", "grouped_mlp", "unpermute", "write_latent", "read_latent")
OTHERS = (
    "mla_attention",
    "merge_shards",
    "process_logits",
    "sample",
    "sample_shard",
    "token_logprobs",
)


def test_every_operation_is_covered() -> None:
    composed = {"fuse_layers", "fuse_mtp"}  # of the others; see tests/engine/model/test_fused.py
    assert set(ROWWISE) | set(TOGETHER) | set(OTHERS) | composed == set(TABLE)
    assert all(TABLE.values()), "batch-invariant mode needs an implementation of each"


def results(value: Any) -> tuple[torch.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@flagged(*ROWWISE)
def test_rowwise(operation: str, candidate: Implementation, dtype: torch.dtype) -> None:
    for per_row, others in rowwise_inputs(dtype)[operation]:
        whole = results(candidate.function(*per_row, *others))
        for part in PARTS:
            cut = [argument[part].clone() for argument in per_row]
            for alone, together in zip(
                results(candidate.function(*cut, *others)), whole, strict=True
            ):
                assert same_bits(alone, together[part]), f"rows {part}"


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts(dtype: torch.dtype, fp8: bool) -> None:
    """Permutation, experts and weighted sum: a token's result does not know its neighbours."""
    num_experts, hidden, width = 8, 72, 40

    def random(*shape: int) -> Any:
        if fp8:
            return random_quant(*shape)
        return (torch.randn(shape) / math.sqrt(shape[-1])).to(dtype)

    gate_up, down = random(num_experts, 2 * width, hidden), random(num_experts, hidden, width)
    x = torch.randn(NUM_ROWS, hidden).to(dtype)
    ids = torch.rand(NUM_ROWS, num_experts).argsort(-1)[:, :3]
    weights = torch.rand(NUM_ROWS, 3)

    def run(part: slice, *stages: Implementation) -> torch.Tensor:
        permute, experts, unpermute = (stage.function for stage in stages)
        rows, permutation = permute(x[part], ids[part], num_experts)
        y = experts(rows, permutation.counts, gate_up, down)
        result: torch.Tensor = unpermute(y, permutation, weights[part])
        return result

    for stages in product(TABLE["permute"], TABLE["grouped_mlp"], TABLE["unpermute"]):
        whole = run(slice(0, NUM_ROWS), *stages)
        assert all(same_bits(run(part, *stages), whole[part]) for part in PARTS)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
def test_cache_entries(dtype: str) -> None:
    layout = LatentLayout(160, 16, dtype)
    latent, rope = torch.randn(NUM_ROWS, 160), torch.randn(NUM_ROWS, 16)
    slots = torch.randperm(64)[:NUM_ROWS]
    for write in TABLE["write_latent"]:
        pages = [torch.zeros(8, 8, layout.width, dtype=layout.torch_dtype) for _ in range(2)]
        whole, single = (LatentCacheLayer(p, layout) for p in pages)
        write.function(whole, latent, rope, slots)
        for i in range(NUM_ROWS):
            write.function(single, latent[i : i + 1], rope[i : i + 1], slots[i : i + 1])
        assert same_bits(*pages)
        for read in TABLE["read_latent"]:
            entries = read.function(whole, torch.arange(8))
            for page in range(8):
                alone = read.function(whole, torch.tensor([page]))
                assert same_bits(alone[0], entries[page])


def row_alone(case: AttentionCase, row: int) -> tuple[AttentionCase, slice]:
    """The case of one row over the same cache, and its tokens in the batch."""
    meta = case.meta
    begin = sum(meta.query_lens[:row])
    part = slice(begin, begin + meta.query_lens[row])
    num_pages = -(-meta.seq_lens[row] // case.cache.page_size)
    alone = AttentionMeta(
        query_lens=[meta.query_lens[row]],
        seq_lens=[meta.seq_lens[row]],
        page_table=meta.page_table[row : row + 1, :num_pages].clone(),
        slots_T=meta.slots_T[part].clone(),
        positions_T=meta.positions_T[part].clone(),
    )
    query = {"q_nope_THN": case.q_nope_THN[part], "q_rope_THR": case.q_rope_THR[part]}
    return dataclasses.replace(case, meta=alone, **query), part


@flagged("mla_attention")
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "fp8"])
def test_attention(operation: str, candidate: Implementation, dtype: str, heads: int) -> None:
    case = attention_case([(70, 1), (0, 45), (31, 2), (16, 16), (5, 1)], dtype=dtype, heads=heads)
    for first_slot in (0, 1):
        whole = run_attention(candidate.function, case, first_slot)
        for row in range(len(case.meta.query_lens)):
            alone, part = row_alone(case, row)
            assert same_bits(run_attention(candidate.function, alone, first_slot), whole[part])


@flagged("process_logits", "sample")
@pytest.mark.parametrize("vocab_size", [131, 70_000])
@pytest.mark.parametrize("make_batch", [sampling_batch, ruled_batch])
def test_sampling(
    operation: str, candidate: Implementation, vocab_size: int, make_batch: Any
) -> None:
    """With large vocabularies torch splits some reductions of a single row over threads."""
    logits = 3 * torch.randn(NUM_ROWS, vocab_size)
    size = () if make_batch is sampling_batch else (vocab_size,)
    batch = make_batch(
        NUM_ROWS, *size, temperature=0.9, top_k=20, top_p=0.9, min_p=0.01, seed=5, position=3
    )
    before = logits.clone()
    whole = candidate.function(logits, batch)
    assert torch.equal(logits, before)
    assert operation != "sample" or len(whole.unique()) > 10
    for part in PARTS:
        alone = candidate.function(logits[part].clone(), batch_rows(batch, part))
        assert same_bits(alone, whole[part])


@pytest.fixture
def set_num_threads() -> Iterator[Callable[[int], None]]:
    """`torch.set_num_threads`, undone afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@flagged("process_logits", "sample", "token_logprobs")
def test_large_vocabulary_with_any_number_of_threads(
    operation: str, candidate: Implementation, set_num_threads: Callable[[int], None]
) -> None:
    vocab_size = 129_280
    logits = 3 * torch.randn(4, vocab_size)
    batch = ruled_batch(4, vocab_size, temperature=0.9, top_k=900, top_p=0.9, position=3)

    def run(part: slice) -> tuple[torch.Tensor, ...]:
        if operation == "token_logprobs":
            return results(candidate.function(logits[part], torch.arange(4)[part], 2))
        return results(candidate.function(logits[part], batch_rows(batch, part)))

    set_num_threads(1)
    whole = run(slice(0, 4))
    for num_threads in (2, 5):
        set_num_threads(num_threads)
        for part in (slice(0, 1), slice(3, 4), slice(1, 3), slice(0, 4)):
            assert all(same_bits(a, w[part]) for a, w in zip(run(part), whole, strict=True))


@flagged("token_logprobs")
@pytest.mark.parametrize("vocab_size", [131, 70_000])
def test_logprobs(operation: str, candidate: Implementation, vocab_size: int) -> None:
    logits, ids = 3 * torch.randn(NUM_ROWS, vocab_size), torch.arange(NUM_ROWS)
    whole = candidate.function(logits, ids, 5)
    for part in PARTS:
        alone = candidate.function(logits[part].clone(), ids[part].clone(), 5)
        assert all(same_bits(a, w[part]) for a, w in zip(alone, whole, strict=True))


@pytest.mark.parametrize("vocab_size", [1, 7, 50, 131])
def test_noise(vocab_size: int) -> None:
    seeds, positions = torch.arange(NUM_ROWS) * 77, torch.arange(NUM_ROWS) * 3
    whole = gumbel_noise(seeds, positions, vocab_size)
    for part in PARTS:
        assert same_bits(gumbel_noise(seeds[part], positions[part], vocab_size), whole[part])


@flagged("sample_shard", "merge_shards")
def test_shards(operation: str, candidate: Implementation) -> None:
    logits, batch = 3 * torch.randn(NUM_ROWS, 131), sampling_batch(NUM_ROWS, temperature=0.8)
    values, ids = torch.randn(4, NUM_ROWS), torch.randint(0, 131, (4, NUM_ROWS))

    def run(part: slice) -> tuple[torch.Tensor, ...]:
        if operation == "merge_shards":
            return results(candidate.function(values[:, part], ids[:, part]))
        return results(candidate.function(logits[part].clone(), batch_rows(batch, part), 400))

    whole = run(slice(0, NUM_ROWS))
    for part in PARTS:
        assert all(same_bits(a, w[part]) for a, w in zip(run(part), whole, strict=True))
