"""FP8 block quantisation of weights (DeepSeek-V3, section 3.3.2)."""

import torch
from torch import Tensor

from leadline.kernels.types import BLOCK, QuantTensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


def quantize_blocks(weight_NK: Tensor, *, ue8m0: bool = False) -> QuantTensor:
    """One scale of amax / 448 per 128x128 block, ragged edges included.

    Args:
        weight_NK: [N, K] of any float dtype.
        ue8m0: round scales up to powers of two.
    """
    rows, columns = weight_NK.shape
    padded = torch.nn.functional.pad(weight_NK.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(-1, (-1, BLOCK))
    amax = blocks.abs().amax(dim=(1, 3))
    scale = torch.where(amax > 0, amax / FP8_MAX, 1.0)
    if ue8m0:
        scale = torch.exp2(torch.ceil(torch.log2(scale)))
    scaled = (blocks / scale[:, None, :, None]).clamp(-FP8_MAX, FP8_MAX)
    data = scaled.flatten(2).flatten(0, 1)[:rows, :columns].to(FP8)
    return QuantTensor(data.contiguous(), scale)
