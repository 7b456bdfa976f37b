"""`linear_fp8` with activations quantised per 1x128: the kernel for few tokens or for many."""

import torch
from torch import Tensor

from leadline.kernels.reference.linear import linear_fp8_1x128
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.linear_large import can_take, linear_large
from leadline.kernels.triton.linear_small import linear_small
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.types import QuantTensor

FEW_TOKENS = 128


def linear_fp8(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` fp8 1x128, `scale_format` fp32."""
    return _multiply(x_TK, weight_NK, "fp32")


def linear_fp8_ue8m0(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` fp8 1x128, `scale_format` ue8m0."""
    return _multiply(x_TK, weight_NK, "ue8m0")


def is_whole(weight_NK: QuantTensor) -> bool:
    """Whether blocks begin with the columns, and values lie side by side."""
    adjacent = weight_NK.data.stride(-1) == weight_NK.scale.stride(-1) == 1
    return adjacent and not weight_NK.col_offset


def _multiply(x_TK: Tensor, weight_NK: QuantTensor, scale_format: str) -> Tensor:
    """The product in either format.

    A weight whose columns were cut inside of a block goes to the reference: the blocks of the
    activations and of the weight do not meet.
    """
    if not is_whole(weight_NK):
        return linear_fp8_1x128(x_TK, weight_NK, scale_format)
    x = rows_of(x_TK)
    if x.shape[0] == 0 or weight_NK.shape[0] == 0:
        return x.new_zeros(*x_TK.shape[:-1], weight_NK.shape[0])
    rows = quantize_fp8(x, scale_format)
    return multiply_rows(*rows, weight_NK, x.dtype).view(*x_TK.shape[:-1], -1)


def multiply_rows(
    q_TK: Tensor, scales: Tensor, weight_NK: QuantTensor, dtype: torch.dtype
) -> Tensor:
    """Product of quantised rows, one at least, with a whole weight: [T, N] in `dtype`."""
    few = q_TK.shape[0] <= FEW_TOKENS or not can_take(q_TK, weight_NK)
    multiply = linear_small if few else linear_large
    return multiply(q_TK, scales, weight_NK, dtype)
