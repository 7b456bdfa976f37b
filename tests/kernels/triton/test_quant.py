"""Quantisation in Triton: the same bits as the reference, alone and after a norm or SwiGLU."""

import math

import pytest
import torch

from leadline.kernels.reference import moe, norm
from leadline.kernels.reference.quant import quantize_fp8 as reference

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.norm import add_rms_norm_fp8
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.swiglu import swiglu_fp8

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMATS = ["fp32", "ue8m0"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def same(actual: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    pairs = list(zip(actual, expected, strict=True))
    return all(torch.equal(a.cpu().view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)


@pytest.mark.parametrize("scale_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_has_the_bits_of_the_reference(dtype: torch.dtype, scale_format: str) -> None:
    """Ties, subnormal numbers and what saturates among them."""
    x = torch.randn(9, 1300) * 10.0 ** torch.arange(-32, 40, 8).unsqueeze(1)
    x[3] = torch.arange(1300) / 16  # many of these are half way between two e4m3 numbers
    x = x.to(dtype)
    assert same(quantize_fp8(x.to(DEVICE), scale_format), reference(x, scale_format))


@pytest.mark.parametrize("scale_format", FORMATS)
@pytest.mark.parametrize("amax", [2.0**-149, 2.0**-130, 1e-37, 3e38])
def test_extreme_values(amax: float, scale_format: str) -> None:
    x = torch.zeros(1, 128)
    x[0, 5] = amax
    assert same(quantize_fp8(x.to(DEVICE), scale_format), reference(x, scale_format))


@pytest.mark.parametrize("scale_format", FORMATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_become_finite(bad: float, scale_format: str) -> None:
    x = torch.randn(2, 256)
    x[0, 130] = bad
    quantized, scales = (part.cpu() for part in quantize_fp8(x.to(DEVICE), scale_format))
    restored = quantized.float() * scales.repeat_interleave(128, 1)
    assert restored[0, 130].isnan()
    assert restored[0, :128].isfinite().all()
    assert restored[1].isfinite().all()


@pytest.mark.parametrize("scale_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_is_one_after_the_other(dtype: torch.dtype, scale_format: str) -> None:
    """As near as a norm or a SwiGLU of its own is: at most one e4m3 step, and seldom."""
    x, residual, gate_up = (torch.randn(6, n).to(dtype) for n in (200, 200, 520))
    weight = torch.rand(200) + 0.5
    y, total = norm.add_rms_norm(x, residual, weight, 1e-6)
    got = add_rms_norm_fp8(*(t.to(DEVICE) for t in (x, residual, weight)), 1e-6, scale_format)
    assert torch.equal(got[2].cpu(), total)
    for (quantized, scales), unfused in (
        (got[:2], y),
        (swiglu_fp8(gate_up.to(DEVICE), scale_format), moe.swiglu(gate_up)),
    ):
        expected, expected_scales = reference(unfused, scale_format)
        assert torch.allclose(
            scales.cpu(), expected_scales, rtol=1e-2 if dtype != torch.float32 else 1e-6
        )
        steps = (quantized.cpu().view(torch.int8).int() - expected.view(torch.int8).int()).abs()
        assert steps.max() <= 1
        assert steps.float().mean() < 0.01


def test_unknown_scale_format() -> None:
    with pytest.raises(ValueError, match="must be fp32 or ue8m0, not 'e8'"):
        quantize_fp8(torch.zeros(1, 128, device=DEVICE), "e8")
