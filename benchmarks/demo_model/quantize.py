"""FP8 with the scale of each block that loses least."""

import torch
from torch import Tensor

from leadline.kernels.types import BLOCK, QuantTensor
from leadline.loader.fp8 import FP8, FP8_MAX, quantize_blocks

# Below amax / 448 the largest values saturate, and the others fall on other steps of the format.
_FACTORS = [1.0 - 0.03 * i for i in range(17)]


def quantize_best(weight: Tensor) -> QuantTensor:
    """As `loader.fp8.quantize_blocks`, with the least squared error over several scales.

    Args:
        weight: [N, K], float.
    """
    weight = weight.float()
    base = quantize_blocks(weight).scale
    best_scale, best_error = base, torch.full_like(base, torch.inf)
    for factor in _FACTORS:
        error = _block_errors(weight, _quantize(weight, base * factor))
        best_scale = torch.where(error < best_error, base * factor, best_scale)
        best_error = torch.minimum(error, best_error)
    return _quantize(weight, best_scale)


def _quantize(weight: Tensor, scale: Tensor) -> QuantTensor:
    ones = QuantTensor(torch.ones_like(weight).to(FP8), scale)
    scaled = (weight / ones.dequantize()).clamp(-FP8_MAX, FP8_MAX)
    return QuantTensor(scaled.to(FP8), scale)


def _block_errors(weight: Tensor, quantized: QuantTensor) -> Tensor:
    """Squared error of each block."""
    rows, columns = weight.shape
    errors = (quantized.dequantize() - weight).square()
    padded = torch.nn.functional.pad(errors, (0, -columns % BLOCK, 0, -rows % BLOCK))
    return padded.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK)).sum(dim=(1, 3))
