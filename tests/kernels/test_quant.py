"""FP8 quantisation in groups of 128 against a definition in loops."""

import math

import pytest
import torch

from leadline.kernels.reference.quant import (
    FP8,
    FP8_MAX,
    GROUP,
    dequantize_groups,
    quantize_fp8,
)
from leadline.kernels.types import QuantTensor


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def by_definition(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    num_rows, num_columns = x.shape
    scales = torch.ones(num_rows, math.ceil(num_columns / GROUP))
    values = torch.zeros(num_rows, num_columns)
    for row in range(num_rows):
        for group in range(scales.shape[1]):
            part = slice(group * GROUP, min((group + 1) * GROUP, num_columns))
            amax = x[row, part].abs().max()
            if amax > 0:
                scales[row, group] = amax / FP8_MAX
            values[row, part] = x[row, part] / scales[row, group]
    return values.to(FP8), scales


@pytest.mark.parametrize("num_columns", [1, 127, 128, 129, 256, 300])
def test_is_the_definition(num_columns: int) -> None:
    x = torch.randn(5, num_columns) * torch.tensor([1e-8, 1.0, 50.0, 1e4, 0.0]).unsqueeze(1)
    quantized, scales = quantize_fp8(x)
    expected, expected_scales = by_definition(x)
    assert quantized.dtype == FP8
    assert torch.equal(quantized.view(torch.uint8), expected.view(torch.uint8))
    assert torch.equal(scales, expected_scales)


def test_zeros() -> None:
    quantized, scales = quantize_fp8(torch.zeros(2, 200))
    assert torch.equal(scales, torch.ones(2, 2))
    assert torch.equal(quantized.float(), torch.zeros(2, 200))


@pytest.mark.parametrize("amax", [2.0**-149, 2.0**-130, 1e-37, 3e38])
@pytest.mark.parametrize("scale_format", ["fp32", "ue8m0"])
def test_extreme_values_stay_finite(amax: float, scale_format: str) -> None:
    x = torch.zeros(1, 128)
    x[0, 5] = amax
    quantized, scales = quantize_fp8(x, scale_format)
    restored = dequantize_groups(quantized, scales)
    assert (scales > 0).all()
    assert restored.isfinite().all()
    assert (restored - x).abs().max() <= max(amax / 8, 1e-42)


def test_error_is_half_a_step() -> None:
    """e4m3 has three bits after the leading one; below 2^-6 its steps are 2^-9."""
    x = torch.randn(8, 300)
    quantized, scales = quantize_fp8(x)
    scale = scales.repeat_interleave(GROUP, dim=1)[:, :300]
    bound = torch.maximum(x.abs() / 16, scale * 2.0**-10) * 1.001
    assert ((dequantize_groups(quantized, scales) - x).abs() <= bound).all()


def test_the_largest_value_is_exact() -> None:
    x = torch.randn(8, 128)
    quantized, _ = quantize_fp8(x)
    assert torch.equal(quantized.float().abs().amax(-1), torch.full((8,), FP8_MAX))


def test_ue8m0_is_the_next_power_of_two() -> None:
    x = torch.randn(64, 256) * 10 ** (torch.rand(64, 1) * 20 - 10)
    quantized, scales = quantize_fp8(x, "ue8m0")
    _, exact = quantize_fp8(x)
    fraction, _ = torch.frexp(scales)
    assert torch.equal(fraction, torch.full_like(fraction, 0.5)), "not a power of two"
    assert (scales >= exact).all()
    assert (scales < 2 * exact).all()
    assert (quantized.float().abs() <= FP8_MAX).all()


@pytest.mark.parametrize("exponent", [-40, -3, 0, 7, 40])
def test_ue8m0_just_around_a_power_of_two(exponent: int) -> None:
    """A logarithm in float32 cannot tell 2^k from its neighbours; the scale must."""
    power = 2.0**exponent
    below, above = FP8_MAX * power * (1 - 2.0**-24), FP8_MAX * power * (1 + 2.0**-23)
    for amax, expected in ((below, power), (FP8_MAX * power, power), (above, 2 * power)):
        _, scales = quantize_fp8(torch.full((1, 128), amax), "ue8m0")
        assert scales.item() == expected


@pytest.mark.parametrize("scale_format", ["fp32", "ue8m0"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_become_finite(bad: float, scale_format: str) -> None:
    x = torch.randn(2, 256)
    x[0, 130] = bad
    restored = dequantize_groups(*quantize_fp8(x, scale_format))
    assert restored[0, 130].isnan()
    assert restored[0, :128].isfinite().all()
    assert restored[1].isfinite().all()


def test_saturates() -> None:
    """amax / (amax / 448) may come out above 448: e4m3 has no number there."""
    amax = (torch.rand(4000, 1) + 0.5) * 3.1
    assert (amax / (amax / FP8_MAX) > FP8_MAX).any()
    quantized, _ = quantize_fp8(amax.expand(-1, 128))
    assert torch.equal(quantized.float(), torch.full((4000, 128), FP8_MAX))


def test_shapes_with_more_dimensions() -> None:
    x = torch.randn(2, 3, 200)
    quantized, scales = quantize_fp8(x)
    flat, flat_scales = quantize_fp8(x.flatten(0, 1))
    assert torch.equal(quantized.flatten(0, 1).float(), flat.float())
    assert torch.equal(scales.flatten(0, 1), flat_scales)


@pytest.mark.parametrize(("rows", "columns"), [((0, 300), (0, 200)), ((70, 260), (130, 131))])
def test_a_cut_tensor_keeps_its_scales(rows: tuple[int, int], columns: tuple[int, int]) -> None:
    data, scale = torch.randn(300, 200).to(FP8), torch.rand(3, 2) + 0.5
    whole = QuantTensor(data, scale).dequantize()
    for i, j in ((0, 0), (127, 128), (128, 127), (299, 199)):
        assert whole[i, j] == data[i, j].float() * scale[i // 128, j // 128]
    blocks = [slice(a // 128, -(-b // 128)) for a, b in (rows, columns)]
    cut = QuantTensor(
        data[slice(*rows), slice(*columns)],
        scale[blocks[0], blocks[1]],
        row_offset=rows[0] % 128,
        col_offset=columns[0] % 128,
    )
    assert torch.equal(cut.dequantize(), whole[slice(*rows), slice(*columns)])
