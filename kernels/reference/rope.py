"""Rotary position embedding on interleaved pairs."""

import torch
from torch import Tensor


def apply_rope(x_THR: Tensor, cos_TR2: Tensor, sin_TR2: Tensor) -> Tensor:
    """See `api.ApplyRope`."""
    even, odd = x_THR[..., 0::2].float(), x_THR[..., 1::2].float()
    cos, sin = cos_TR2.unsqueeze(1), sin_TR2.unsqueeze(1)
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).to(x_THR.dtype)
