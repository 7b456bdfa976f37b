"""Triton kernels of batch-invariant mode: right, and a row's bits are those that it has alone."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from leadline.kernels.reference.linear import linear, linear_fp8_1x128
from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.reference.moe import GroupedMLP, permute
from leadline.kernels.select import Platform, select_kernels
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    AttentionCase,
    attention_case,
    operation_inputs,
    random_quant,
    relative_error,
    run_attention,
    to_device,
)
from leadline.kernels.types import QuantTensor

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.heads import multiply_heads
from leadline.kernels.triton.invariant import InvariantMLA, grouped_mlp, linear_fp8

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 2e-3 if DEVICE == "cuda" else FLOAT32_TOLERANCE  # FP8 tensor cores keep 14 bits


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_a_gpu_has_a_kernel_of_ours_for_every_operation_in_this_mode() -> None:
    _, choices = select_kernels(Platform("cuda", batch_invariant=True))
    others = {c.operation for c in choices if not c.chosen.startswith("triton")}
    assert others == {"merge_shards"}  # four operations of torch


@pytest.mark.parametrize("operation", ["linear_fp8", "grouped_mlp"])
def test_equals_reference(operation: str) -> None:
    kernel, expected_by = {
        "linear_fp8": (linear_fp8, linear_fp8_1x128),
        "grouped_mlp": (grouped_mlp, GroupedMLP(linear, linear_fp8_1x128)),
    }[operation]
    for arguments in operation_inputs()[operation]:
        actual = kernel(*to_device(arguments, DEVICE)).cpu()
        assert relative_error(actual, expected_by(*arguments)) < TOLERANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products(dtype: torch.dtype) -> None:
    """Nine blocks of K in two parts; 70 tokens are two tiles; and a weight cut by columns."""
    cut = random_quant(40, 256)
    cut = QuantTensor(cut.data[:, 64:].contiguous(), cut.scale, col_offset=64)
    for weight in (random_quant(200, 1152), cut):
        x = torch.randn(70, weight.shape[1]).to(dtype)
        together = linear_fp8(*to_device((x, weight), DEVICE))
        for row in (0, 3, 69):
            alone = linear_fp8(*to_device((x[row : row + 1], weight), DEVICE))
            assert torch.equal(alone, together[row : row + 1])


@pytest.mark.parametrize("fp8", [True, False])
def test_experts(fp8: bool) -> None:
    """Tokens alone, and among others that fill several tiles of their expert."""
    weights: Any = [torch.randn(4, 192, 128) / 12, torch.randn(4, 128, 96) / 10]
    if fp8:
        weights = [random_quant(4, 192, 128), random_quant(4, 128, 96)]
    x = torch.randn(150, 128)
    ids = torch.where(torch.rand(150, 2) < 0.5, 1, torch.randint(0, 4, (150, 2)))

    def compute(part: slice) -> Tensor:
        rows, permutation = permute(x[part], ids[part], 4)
        y = grouped_mlp(*to_device((rows, permutation.counts, *weights), DEVICE)).cpu()
        return y[permutation.order_R.argsort()].view(-1, 2, 128)

    together = compute(slice(0, 150))
    for part in (slice(0, 1), slice(149, 150), slice(20, 27)):
        assert torch.equal(compute(part), together[part])


def test_heads() -> None:
    x, weight = torch.randn(70, 3, 40, device=DEVICE), torch.randn(3, 40, 72, device=DEVICE)
    y = multiply_heads(x, weight)
    assert relative_error(y, torch.einsum("thk,hkn->thn", x, weight)) < FLOAT32_TOLERANCE
    assert torch.equal(multiply_heads(x[69:], weight.mT.contiguous().mT), y[69:])
    wide = torch.randn(5, 3, 50, device=DEVICE)
    assert torch.equal(
        multiply_heads(wide[..., :40], weight), multiply_heads(wide[..., :40].contiguous(), weight)
    )


def rows_of(case: AttentionCase, row: int, begin: int, end: int) -> AttentionCase:
    """New tokens `begin` to `end` of one row, as if the others before it were cached."""
    first = sum(case.meta.query_lens[:row])
    length = case.meta.seq_lens[row] - case.meta.query_lens[row] + end
    tokens = slice(first + begin, first + end)
    meta = dataclasses.replace(
        case.meta,
        query_lens=[end - begin],
        seq_lens=[length],
        page_table=case.meta.page_table[row : row + 1],
        slots_T=case.meta.slots_T[tokens],
        positions_T=case.meta.positions_T[tokens],
    )
    return dataclasses.replace(
        case, meta=meta, q_nope_THN=case.q_nope_THN[tokens], q_rope_THR=case.q_rope_THR[tokens]
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize("first_slot", [0, 1])
def test_attention(dtype: str, first_slot: int) -> None:
    """Whole or in chunks, alone or together; one row reaches over three parts of 32 pages."""
    case = attention_case(
        [(0, 5), (180, 2), (9, 30), (0, 1)], dtype=dtype, heads=3, page_size=2, value=40
    )
    expected = run_attention(ReferenceMLA, case, first_slot)
    together = run_attention(InvariantMLA, to_device(case, DEVICE), first_slot).cpu()
    assert relative_error(together, expected) < FLOAT32_TOLERANCE
    for row, begin, end in ((0, 0, 5), (1, 0, 2), (1, 1, 2), (2, 0, 30), (2, 7, 20), (2, 29, 30)):
        part = rows_of(case, row, begin, end)
        alone = run_attention(InvariantMLA, to_device(part, DEVICE), first_slot).cpu()
        first = sum(case.meta.query_lens[:row])
        assert torch.equal(alone, together[first + begin : first + end])


def test_attention_of_zero_rows() -> None:
    case = to_device(attention_case([]), DEVICE)
    assert run_attention(InvariantMLA, case, 0).shape == (0, 4, 32)
