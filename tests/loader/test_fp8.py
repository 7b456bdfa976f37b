import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from leadline.loader.fp8 import quantize_blocks

SIZES = st.integers(1, 260)


def weight_of(rows: int, columns: int, seed: int, magnitude: float, zeros: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator) * magnitude
    return values.masked_fill(torch.rand(rows, columns, generator=generator) < zeros, 0.0)


def scale_of(block: Tensor, *, ue8m0: bool) -> float:
    """Section 3.3.2: the largest magnitude of the block becomes 448, the largest FP8 value."""
    amax = float(block.abs().max())
    if amax == 0:
        return 1.0
    scale = float((torch.tensor(amax) / 448).clamp(min=2.0**-126))
    if not ue8m0:
        return scale
    power = 2.0 ** math.floor(math.log2(scale))  # exact after the loop, whatever log2 rounds to
    while power < scale:
        power *= 2
    while power / 2 >= scale:
        power /= 2
    return power


@settings(max_examples=25, deadline=None)
@given(
    rows=SIZES,
    columns=SIZES,
    seed=st.integers(0, 1000),
    magnitude=st.sampled_from([1.0, 1e-38, 1e-43, 1e-20, 1e30, 7e37]),
    zeros=st.sampled_from([0.0, 0.5, 1.0]),
    ue8m0=st.booleans(),
)
@example(rows=129, columns=257, seed=0, magnitude=1.0, zeros=0.0, ue8m0=True)
@example(rows=1, columns=1, seed=0, magnitude=1e-45, zeros=0.0, ue8m0=False)
def test_equals_the_definition_written_as_loops(
    rows: int, columns: int, seed: int, magnitude: float, zeros: float, ue8m0: bool
) -> None:
    weight = weight_of(rows, columns, seed, magnitude, zeros)
    quantized = quantize_blocks(weight, ue8m0=ue8m0)
    assert quantized.data.dtype == torch.float8_e4m3fn
    assert quantized.data.shape == weight.shape
    assert quantized.scale.dtype == torch.float32
    assert quantized.scale.shape == (-(-rows // 128), -(-columns // 128))
    assert (quantized.row_offset, quantized.col_offset) == (0, 0)
    for i in range(quantized.scale.shape[0]):
        for j in range(quantized.scale.shape[1]):
            block = (slice(i * 128, (i + 1) * 128), slice(j * 128, (j + 1) * 128))
            scale = scale_of(weight[block], ue8m0=ue8m0)
            assert float(quantized.scale[i, j]) == scale
            expected = (weight[block] / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
            assert torch.equal(quantized.data[block].view(torch.uint8), expected.view(torch.uint8))


@pytest.mark.parametrize("ue8m0", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_at_most_half_a_step_of_e4m3(dtype: torch.dtype, ue8m0: bool) -> None:
    weight = weight_of(200, 300, 1, 1.0, 0.0).to(dtype)
    restored = quantize_blocks(weight, ue8m0=ue8m0).dequantize()
    # Three mantissa bits: relative error 2^-4; below 2^-6, the smallest normal, absolute 2^-10.
    smallest = float(quantize_blocks(weight, ue8m0=ue8m0).scale.max()) * 2.0**-10
    error = (restored - weight.float()).abs()
    assert bool((error <= weight.float().abs() * 2**-4 * 1.0001 + smallest).all())


def test_powers_of_two_keep_their_scale() -> None:
    """amax / 448 that is a power of two already is not rounded up."""
    for exponent in (-100, -3, 0, 5, 100):
        weight = torch.full((2, 2), 448.0 * 2.0**exponent)
        assert float(quantize_blocks(weight, ue8m0=True).scale) == 2.0**exponent
    above = torch.full((2, 2), 448.5)
    assert float(quantize_blocks(above, ue8m0=True).scale) == 2.0


def test_the_largest_value_survives_exactly() -> None:
    weight = torch.tensor([[3.5, -7.0, 0.0]])
    quantized = quantize_blocks(weight)
    assert quantized.data.float().tolist() == [[224.0, -448.0, 0.0]]
    assert torch.equal(quantized.dequantize(), weight)
