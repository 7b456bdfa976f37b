"""FP8 block quantisation of weights (DeepSeek-V3, section 3.3.2)."""

import torch
from torch import Tensor

from leadline.kernels.types import BLOCK, QuantTensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
# The smallest normal float32: below it the quotient of a value and its scale loses its precision.
_MIN_SCALE = 2.0**-126


def quantize_blocks(weight: Tensor, *, ue8m0: bool = False) -> QuantTensor:
    """One scale of amax / 448 per 128x128 block, 1 for a block of zeros, ragged edges included.

    Args:
        weight: [N, K] of any float dtype, finite.
        ue8m0: round scales up to powers of two.

    Returns:
        Data [N, K], scales [ceil(N / 128), ceil(K / 128)].
    """
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    amax = blocks.abs().amax(dim=(1, 3))
    scale = torch.where(amax > 0, (amax / FP8_MAX).clamp(min=_MIN_SCALE), 1.0)
    if ue8m0:
        scale = _round_up_to_power_of_two(scale)
    scaled = (blocks / scale[:, None, :, None]).clamp(-FP8_MAX, FP8_MAX)
    data = scaled.reshape(padded.shape)[:rows, :columns].to(FP8)
    return QuantTensor(data.contiguous(), scale)


def _round_up_to_power_of_two(scale: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(scale)  # scale = mantissa x 2^exponent, mantissa in [0.5, 1)
    is_power = mantissa == 0.5
    return torch.ldexp(torch.ones_like(scale), exponent - is_power.int())
