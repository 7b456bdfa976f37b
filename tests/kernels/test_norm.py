"""RMSNorm against its formula, written out for one element after the other."""

import math

import pytest
import torch

from leadline.kernels.reference.norm import add_rms_norm, rms_norm
from leadline.kernels.testing import FLOAT32_TOLERANCE, relative_error


def by_formula(row: list[float], weight: list[float], eps: float) -> list[float]:
    rms = math.sqrt(sum(value * value for value in row) / len(row) + eps)
    return [value / rms * factor for value, factor in zip(row, weight, strict=True)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_is_the_formula(eps: float) -> None:
    x, weight = torch.randn(4, 24) * 3, torch.rand(24) + 0.5
    expected = [by_formula(row, weight.tolist(), eps) for row in x.tolist()]
    assert relative_error(rms_norm(x, weight, eps), torch.tensor(expected)) < FLOAT32_TOLERANCE


def test_sums_in_float32() -> None:
    """In bfloat16 the sum of 4096 squares would stop growing at 256."""
    x = torch.full((1, 4096), 1.0, dtype=torch.bfloat16)
    y = rms_norm(x, torch.ones(4096), 1e-6)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, x)


def test_zeros_stay_zeros() -> None:
    x = torch.zeros(2, 8)
    assert torch.equal(rms_norm(x, torch.ones(8), 1e-6), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add_is_a_sum_and_a_norm(dtype: torch.dtype) -> None:
    x, residual = torch.randn(2, 5, 24).to(dtype)
    before = x.clone(), residual.clone()
    weight = torch.rand(24)
    normed, total = add_rms_norm(x, residual, weight, 1e-6)
    assert torch.equal(total, x + residual)
    assert torch.equal(normed, rms_norm(x + residual, weight, 1e-6))
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])
