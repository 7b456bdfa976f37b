"""Latent attention in Triton: absorbed, expanded and mixed, split and whole, in every layout."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    AttentionCase,
    attention_case,
    relative_error,
    run_attention,
    to_device,
)

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.merge import merge_attention
from leadline.kernels.triton.mla import TritonMLA
from leadline.kernels.triton.mla_decode import plan_decode

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS = [(0, 5), (70, 1), (16, 16), (3, 40), (31, 2), (0, 1)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def limited(max_absorbed: int) -> Callable[..., Any]:
    def new_attention(**kw: Any) -> TritonMLA:
        return TritonMLA(max_absorbed=max_absorbed, context_chunk=48, **kw)

    return new_attention


def run(case: AttentionCase, max_absorbed: int, first_slot: int) -> torch.Tensor:
    return run_attention(limited(max_absorbed), to_device(case, DEVICE), first_slot).cpu()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize("max_absorbed", [0, 8, 1000], ids=["expanded", "mixed", "absorbed"])
def test_equals_reference(max_absorbed: int, dtype: str) -> None:
    """Unused slots hold NaN, and so does slot 0 where it is not to be seen."""
    case = attention_case(ROWS, dtype=dtype, heads=2)
    for first_slot in (0, 1):
        expected = run_attention(ReferenceMLA, case, first_slot)
        if first_slot:
            slots = case.meta.page_table[:, 0]
            bits = case.cache.pages.view(torch.uint8)
            bits[slots, 0] = 0xFF  # NaN in every layout
        output = run(case, max_absorbed, first_slot)
        assert output.dtype == torch.float32
        assert relative_error(output, expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("sizes", [{"latent": 96, "rope": 8, "nope": 24, "value": 40}])
def test_sizes_that_are_no_power_of_two(sizes: dict[str, int]) -> None:
    case = attention_case([(40, 2), (3, 20)], heads=3, page_size=8, dtype="fp8", **sizes)
    expected = run_attention(ReferenceMLA, case, 0)
    assert relative_error(run(case, 8, 0), expected) < FLOAT32_TOLERANCE


def test_more_queries_than_a_tile() -> None:
    """8 tokens of 12 heads are 96 rows of tiles of 64."""
    case = attention_case([(20, 8), (1, 7)], heads=12, dtype="bfloat16")
    expected = run_attention(ReferenceMLA, case, 0)
    assert relative_error(run(case, 8, 0), expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("max_absorbed", [0, 8])
@pytest.mark.parametrize("dtype", ["bfloat16", "fp8"])
def test_bfloat16(dtype: str, max_absorbed: int) -> None:
    """Queries, weights and softmax weights are rounded to 8 bits before products."""
    case = attention_case(ROWS, dtype=dtype, heads=2)
    case.q_nope_THN, case.q_rope_THR = case.q_nope_THN.bfloat16(), case.q_rope_THR.bfloat16()
    case.projection.w_uk_HNC = case.projection.w_uk_HNC.bfloat16()
    case.projection.w_uv_HVC = case.projection.w_uv_HVC.bfloat16()
    output = run(case, max_absorbed, 0)
    assert output.dtype == torch.bfloat16
    case.q_nope_THN, case.q_rope_THR = case.q_nope_THN.float(), case.q_rope_THR.float()
    assert relative_error(output, run_attention(ReferenceMLA, case, 0)) < 2.0**-6


def test_the_plan_covers_every_key_once() -> None:
    case = attention_case([(70, 1), (0, 5), (300, 2)], heads=16)
    plan = plan_decode(case.meta, [0, 2], 16, case.cache.page_size)
    items = plan.items.tolist()
    for first_item, num_items, first, size in plan.tiles.tolist():
        mine = items[first_item : first_item + num_items]
        assert {item[0] + item[2] for item in mine} == {first}
        assert 0 < size <= plan.tile_size
        keys = [key for item in mine for key in range(item[6], item[7])]
        assert keys == list(range(mine[0][4]))
    queries = [q for _, _, first, size in plan.tiles.tolist() for q in range(first, first + size)]
    assert queries == [*range(16), *range(6 * 16, 8 * 16)]


def test_query_without_keys_is_zero() -> None:
    for max_absorbed in (0, 8):
        output = run(attention_case([(0, 1)]), max_absorbed, 1)
        assert torch.equal(output, torch.zeros(1, 4, 32))


def test_zero_rows() -> None:
    assert run(attention_case([]), 8, 0).shape == (0, 4, 32)


def test_other_dtypes_are_refused() -> None:
    case = attention_case([(0, 1)])
    case.q_nope_THN = case.q_nope_THN.half()
    with pytest.raises(TypeError, match=r"bfloat16 or float32, not torch\.float16"):
        run(case, 8, 0)


def test_merge_of_nothing_is_zero() -> None:
    nothing = torch.zeros(1, 1, 2, device=DEVICE), torch.full((1, 1), -math.inf, device=DEVICE)
    merged, lse = merge_attention(*nothing, *nothing)
    assert torch.equal(merged.cpu(), torch.zeros(1, 1, 2))
    assert lse.item() == -math.inf
