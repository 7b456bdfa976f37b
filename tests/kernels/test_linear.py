"""Products with FP8 weights, in the three number formats that the contract tells apart."""

import pytest
import torch

from leadline.kernels.api import LinearFP8
from leadline.kernels.reference.linear import (
    linear,
    linear_fp8,
    linear_fp8_1x128,
    linear_fp8_1x128_ue8m0,
    router_logits,
)
from leadline.kernels.reference.quant import dequantize_groups, quantize_fp8
from leadline.kernels.testing import FLOAT32_TOLERANCE, random_quant, relative_error
from leadline.kernels.types import QuantTensor

SHAPES = [(1, 128, 128), (5, 200, 160), (3, 130, 300), (0, 200, 160)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("num_rows", "n", "k"), SHAPES)
def test_fp8_is_the_product_of_what_is_meant(num_rows: int, n: int, k: int) -> None:
    x, weight = torch.randn(num_rows, k), random_quant(n, k)
    expected = x.double() @ weight.dequantize(torch.float64).T
    assert relative_error(linear_fp8(x, weight), expected) < FLOAT32_TOLERANCE


def test_fp8_of_a_cut_weight() -> None:
    whole = random_quant(300, 256)
    cut = QuantTensor(whole.data[100:290], whole.scale, row_offset=100)
    x = torch.randn(4, 256)
    expected = linear_fp8(x, whole)[:, 100:290]
    assert relative_error(linear_fp8(x, cut), expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize(
    ("function", "scale_format"),
    [(linear_fp8_1x128, "fp32"), (linear_fp8_1x128_ue8m0, "ue8m0")],
)
@pytest.mark.parametrize(("num_rows", "n", "k"), SHAPES)
def test_fp8_activations_are_rounded_first(
    function: LinearFP8,
    scale_format: str,
    num_rows: int,
    n: int,
    k: int,
) -> None:
    x, weight = torch.randn(num_rows, k), random_quant(n, k)
    rounded = dequantize_groups(*quantize_fp8(x, scale_format))
    expected = rounded.double() @ weight.dequantize(torch.float64).T
    assert relative_error(function(x, weight), expected) < FLOAT32_TOLERANCE


def test_the_formats_agree_where_nothing_is_rounded() -> None:
    """Small integers times a power of two, the largest being 448: exact in every format."""
    x = torch.randint(-15, 16, (4, 256)).float() / 8
    x[:, [0, 128]] = 448 / 8
    weight = random_quant(200, 256)
    exact = linear_fp8(x, weight)
    assert torch.equal(linear_fp8_1x128(x, weight), exact)
    assert torch.equal(linear_fp8_1x128_ue8m0(x, weight), exact)


@pytest.mark.parametrize("function", [linear_fp8_1x128, linear_fp8_1x128_ue8m0])
def test_rounding_error_is_bounded(function: LinearFP8) -> None:
    """Each product is off by at most 1/16 of itself, or by half of e4m3's smallest step."""
    x, weight = torch.randn(16, 512) * 3, random_quant(200, 512)
    values = weight.dequantize(torch.float64)
    exact = x.double() @ values.T
    _, scales = quantize_fp8(x, "ue8m0" if function is linear_fp8_1x128_ue8m0 else "fp32")
    steps = scales.repeat_interleave(128, dim=1).double() * 2.0**-10
    bound = torch.maximum(x.double().abs() / 16, steps) @ values.abs().T
    error = (function(x, weight) - exact).abs()
    assert (error <= bound * 1.001).all()
    assert 0 < error.norm() / exact.norm() < 0.04


def test_dtype_is_that_of_the_activations() -> None:
    x, weight = torch.randn(3, 160).bfloat16(), random_quant(200, 160)
    for function in (linear_fp8, linear_fp8_1x128, linear_fp8_1x128_ue8m0):
        assert function(x, weight).dtype == torch.bfloat16
    assert linear(x, torch.randn(8, 160).bfloat16()).dtype == torch.bfloat16


def test_router_logits_are_float32() -> None:
    """The sum 256 + 1 + 1 + ... of bfloat16 activations is not rounded on its way."""
    x = torch.ones(1, 40, dtype=torch.bfloat16)
    x[0, 0] = 256
    logits = router_logits(x, torch.ones(3, 40))
    assert logits.dtype == torch.float32
    assert torch.equal(logits, torch.full((1, 3), 256.0 + 39))
