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
    return padded.view(*x_TK.shape[:-1], num_groups, GROUP)


def quantize_fp8(x_TK: Tensor, scale_format: str = "fp32") -> tuple[Tensor, Tensor]:
    """See `api.QuantizeFP8`."""
    groups = _to_groups(x_TK)
    scales = groups.abs().amax(-1) / FP8_MAX
    # The quotient of the smallest subnormal numbers is 0, as that of zeros is.
    scales = torch.where(scales == 0, 1.0, scales)
    if scale_format == "ue8m0":
        scales = _next_power_of_two(scales)
    quantized = (groups / scales.unsqueeze(-1)).clamp(-FP8_MAX, FP8_MAX).to(FP8)
    return quantized.flatten(-2)[..., : x_TK.shape[-1]].contiguous(), scales


def _next_power_of_two(x: Tensor) -> Tensor:
    """The smallest power of two that is at least x > 0; a rounded logarithm may miss it."""
    fraction, exponent = torch.frexp(x)
    power = torch.ldexp(torch.ones_like(x), exponent - (fraction == 0.5).int())
    return torch.where(x.isfinite(), power, x)


def dequantize_groups(quantized_TK: Tensor, scales: Tensor) -> Tensor:
    """Inverse of `quantize_fp8`: float32 [T, K]."""
    groups = _to_groups(quantized_TK) * scales.unsqueeze(-1)
    return groups.flatten(-2)[..., : quantized_TK.shape[-1]]
