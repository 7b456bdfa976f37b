"""FP8 quantisation of activations and of cached latents, in groups along the last dimension."""

import torch
from torch import Tensor

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
GROUP = 128


def _to_groups(x_TK: Tensor) -> Tensor:
    """[T, K] -> float32 [T, ceil(K / 128), 128], padded with zeros."""
    num_groups = -(-x_TK.shape[-1] // GROUP)
    padded = torch.nn.functional.pad(x_TK.float(), (0, num_groups * GROUP - x_TK.shape[-1]))
    return padded.unflatten(-1, (num_groups, GROUP))


def quantize_fp8(x_TK: Tensor, scale_format: str = "fp32") -> tuple[Tensor, Tensor]:
    """See `api.QuantizeFP8`."""
    groups = _to_groups(x_TK)
    amax = groups.abs().amax(-1)
    scales = torch.where(amax > 0, amax / FP8_MAX, 1.0)
    if scale_format == "ue8m0":
        scales = torch.exp2(torch.ceil(torch.log2(scales)))
    quantized = (groups / scales.unsqueeze(-1)).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    return quantized.flatten(-2)[..., : x_TK.shape[-1]].contiguous(), scales


def dequantize_groups(quantized_TK: Tensor, scales: Tensor) -> Tensor:
    """Inverse of `quantize_fp8`: float32 [T, K]."""
    groups = _to_groups(quantized_TK) * scales.unsqueeze(-1)
    return groups.flatten(-2)[..., : quantized_TK.shape[-1]]
