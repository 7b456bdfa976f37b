"""Every implementation of every operation against the reference."""

import dataclasses
from typing import Any

import pytest
import torch

from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.select import Implementation, Platform, implementations
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    attention_case,
    operation_inputs,
    relative_error,
    run_attention,
)

TABLE = implementations()
# These have tests of their own: below, test_attention.py, test_latent_cache.py, test_fused.py.
WITH_A_CACHE = {"mla_attention", "read_latent", "write_latent", "fuse_layers", "fuse_mtp"}
OTHERS = [
    pytest.param(operation, candidate, id=f"{operation}-{candidate.name}")
    for operation, candidates in TABLE.items()
    for candidate in candidates
    if candidate.name != "reference" and operation not in WITH_A_CACHE
]
ATTENTIONS = [c for c in TABLE["mla_attention"] if c.reject(Platform()) is None]
READERS = [c for c in TABLE["read_latent"] if c.reject(Platform()) is None]
WRITERS = [c for c in TABLE["write_latent"] if c.reject(Platform()) is None]
ROWS = [(0, 5), (70, 1), (16, 16), (3, 40), (31, 2), (0, 1), (200, 33)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reference(operation: str) -> Implementation:
    return next(c for c in TABLE[operation] if c.name == "reference")


def skip_rejected(candidate: Implementation) -> None:
    reason = candidate.reject(Platform())
    if reason is not None:
        pytest.skip(reason)


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [tensor for item in value for tensor in tensors_of(item)]


def assert_same(actual: Any, expected: Any) -> None:
    pairs = list(zip(tensors_of(actual), tensors_of(expected), strict=True))
    assert pairs
    for got, wanted in pairs:
        assert got.dtype == wanted.dtype
        if wanted.is_floating_point() and wanted.dtype != torch.float8_e4m3fn:
            assert relative_error(got, wanted) < FLOAT32_TOLERANCE
        else:
            assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize(("operation", "candidate"), OTHERS)
def test_equals_reference(operation: str, candidate: Implementation) -> None:
    skip_rejected(candidate)
    for arguments in operation_inputs()[operation]:
        expected = reference(operation).function(*arguments)
        assert_same(candidate.function(*arguments), expected)


@pytest.mark.parametrize("operation", sorted(set(TABLE) - WITH_A_CACHE))
def test_reference_takes_every_input(operation: str) -> None:
    for arguments in operation_inputs()[operation]:
        assert tensors_of(reference(operation).function(*arguments))


@pytest.mark.parametrize("candidate", ATTENTIONS, ids=lambda c: c.name)
@pytest.mark.parametrize("first_slot", [0, 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
def test_attention_equals_reference(candidate: Implementation, first_slot: int, dtype: str) -> None:
    skip_rejected(candidate)
    case = attention_case(ROWS, dtype=dtype)
    expected = run_attention(reference("mla_attention").function, case, first_slot)
    actual = run_attention(candidate.function, case, first_slot)
    assert relative_error(actual, expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("candidate", ATTENTIONS, ids=lambda c: c.name)
def test_attention_of_zero_rows(candidate: Implementation) -> None:
    """The other operations have zero rows among their inputs."""
    skip_rejected(candidate)
    assert run_attention(candidate.function, attention_case([]), 0).shape == (0, 4, 32)


@pytest.mark.parametrize("candidate", WRITERS, ids=lambda c: c.name)
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize("spread", [0, 3, 30])
def test_written_entries_are_exactly_the_reference(
    candidate: Implementation, source: torch.dtype, dtype: str, spread: float
) -> None:
    """Values over many magnitudes, zeros, NaN and infinities; some slots are skipped."""
    layout = LatentLayout(160, 16, dtype)
    latent, rope = (torch.randn(40, n) * torch.exp2(spread * torch.randn(40, n)) for n in (160, 16))
    latent[3], latent[4, 7], latent[5, 9] = 0.0, torch.nan, torch.inf
    latent[6] = 1e-42
    slots = torch.randperm(64)[:40]
    slots[::7] = -1
    pages = [torch.zeros(8, 8, layout.width, dtype=layout.torch_dtype) for _ in range(2)]
    for write, storage in zip((candidate, reference("write_latent")), pages, strict=True):
        cache = LatentCacheLayer(storage, layout)
        write.function(cache, latent.to(source), rope.to(source), slots)
    # torch has two bit patterns for the NaN of bfloat16, by where a value lies in a tensor.
    torch.testing.assert_close(*pages, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("candidate", WRITERS, ids=lambda c: c.name)
def test_a_slot_that_there_is_not_is_refused(candidate: Implementation) -> None:
    layout = LatentLayout(8, 2, "float32")
    cache = LatentCacheLayer(torch.zeros(2, 4, layout.width), layout)
    with pytest.raises((ValueError, IndexError)):
        candidate.function(cache, torch.ones(2, 8), torch.ones(2, 2), torch.tensor([0, 8]))


@pytest.mark.parametrize("candidate", READERS, ids=lambda c: c.name)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
def test_read_pages_are_exactly_the_reference(candidate: Implementation, dtype: str) -> None:
    layout = LatentLayout(160, 16, dtype)
    cache = LatentCacheLayer(torch.zeros(8, 8, layout.width, dtype=layout.torch_dtype), layout)
    slots = torch.randperm(64)[:50]
    reference("write_latent").function(cache, torch.randn(50, 160), torch.randn(50, 16), slots)
    for page_ids in ([], [3], [7, 0, 7, 5]):
        wanted = torch.tensor(page_ids, dtype=torch.int64)
        expected = reference("read_latent").function(cache, wanted)
        assert torch.equal(candidate.function(cache, wanted), expected)
    with pytest.raises((ValueError, IndexError)):
        candidate.function(cache, torch.tensor([0, 8]))
