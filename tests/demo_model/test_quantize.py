"""The quantiser of the built-in model never loses more than the plain one."""

import pytest
import torch

from benchmarks.demo_model.quantize import quantize_best
from leadline.loader.fp8 import quantize_blocks


@pytest.mark.parametrize("shape", [(128, 128), (200, 96), (1, 300)])
def test_error_is_at_most_that_of_the_plain_scales(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape) * torch.rand(shape)
    plain, best = quantize_blocks(weight), quantize_best(weight)
    assert best.scale.shape == plain.scale.shape
    plain_error = (plain.dequantize() - weight).square().sum()
    best_error = (best.dequantize() - weight).square().sum()
    assert 0 < best_error <= plain_error * (1 + 1e-6)
