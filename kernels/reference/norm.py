"""RMSNorm (Zhang and Sennrich, 2019)."""

import torch
from torch import Tensor


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See `api.RMSNorm`."""
    x = x_TD.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return (x * weight_D.float()).to(x_TD.dtype)


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `api.AddRMSNorm`."""
    residual = residual_TD + x_TD
    return rms_norm(residual, weight_D, eps), residual
