"""RMSNorm, with residual addition and quantisation in one pass."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.launch import check_scale_format, rows_of
from leadline.kernels.triton.numerics import narrow, quantize_groups


@triton.jit
def norm_kernel(
    x_ptr,
    residual_ptr,
    weight_ptr,
    y_ptr,
    sum_ptr,
    q_ptr,
    scales_ptr,
    x_stride,
    residual_stride,
    num_columns,
    num_groups,
    eps,
    add: tl.constexpr,
    keep: tl.constexpr,
    quantize: tl.constexpr,
    ue8m0: tl.constexpr,
    groups: tl.constexpr,
):
    """One row a program, as [groups, 128]; the result as it is, quantised, or both."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_columns
    x = tl.load(x_ptr + row * x_stride + columns, mask, 0.0).to(tl.float32)
    dtype: tl.constexpr = sum_ptr.dtype.element_ty
    if add:
        x += tl.load(residual_ptr + row * residual_stride + columns, mask, 0.0).to(tl.float32)
        rounded = narrow(x, dtype)
        tl.store(sum_ptr + row * num_columns + columns, rounded, mask)
        x = rounded.to(tl.float32)
    mean = tl.sum(tl.sum(x * x, axis=1), axis=0) / num_columns
    weight = tl.load(weight_ptr + columns, mask, 0.0).to(tl.float32)
    y = narrow(x * tl.rsqrt(mean + eps) * weight, dtype)
    if quantize:
        q, scales = quantize_groups(y.to(tl.float32), ue8m0)
        tl.store(q_ptr + row * num_columns + columns, q, mask)
        tl.store(scales_ptr + row * num_groups + group, scales, group < num_groups)
    if keep:
        tl.store(y_ptr + row * num_columns + columns, y, mask)


@dataclass(slots=True)
class Normed:
    """What a norm gives.

    Attributes:
        y: normed rows, in the dtype of the input; empty where only their quantised form is wanted.
        q, scales: quantised rows (see `api.QuantizeFP8`); empty where they are not wanted.
        total: x + residual; x where nothing was added.
    """

    y: Tensor
    q: Tensor
    scales: Tensor
    total: Tensor


def norm_rows(
    x_TD: Tensor,
    residual_TD: Tensor | None,
    weight_D: Tensor,
    eps: float,
    *,
    scale_format: str | None = None,
    keep: bool = True,
) -> Normed:
    """RMSNorm of x or x + residual; quantised too with a scale format, only so without `keep`."""
    x = rows_of(x_TD)
    add = residual_TD is not None
    residual = x if residual_TD is None else rows_of(residual_TD)
    dtype = torch.promote_types(x.dtype, residual.dtype)
    (num_rows, num_columns), device = x.shape, x.device
    num_groups = -(-num_columns // 128)
    quantize = scale_format is not None
    total = torch.empty(x.shape, dtype=dtype, device=device) if add else x
    y = torch.empty((num_rows if keep else 0, num_columns), dtype=dtype, device=device)
    num_quantized = num_rows if quantize else 0
    q = torch.empty((num_quantized, num_columns), dtype=torch.float8_e4m3fn, device=device)
    scales = torch.empty(num_quantized, num_groups, dtype=torch.float32, device=device)
    if x.numel():
        groups = triton.next_power_of_2(num_groups)
        norm_kernel[(num_rows,)](
            x,
            residual,
            weight_D.contiguous(),
            y,
            total,
            q,
            scales,
            x.stride(0),
            residual.stride(0),
            num_columns,
            num_groups,
            eps,
            add=add,
            keep=keep,
            quantize=quantize,
            ue8m0=scale_format == "ue8m0",
            groups=groups,
            num_warps=min(8, max(1, groups // 4)),
        )
    return Normed(y, q, scales, total)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See `api.RMSNorm`."""
    return norm_rows(x_TD, None, weight_D, eps).y.view(x_TD.shape)


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `api.AddRMSNorm`."""
    normed = norm_rows(x_TD, residual_TD, weight_D, eps)
    return normed.y.view(x_TD.shape), normed.total.view(x_TD.shape)


def add_rms_norm_fp8(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, scale_format: str = "fp32"
) -> tuple[Tensor, Tensor, Tensor]:
    """`add_rms_norm` and then `quantize_fp8`, in one pass.

    Returns:
        (float8_e4m3fn [T, D], float32 scales [T, ceil(D / 128)], x + residual).
    """
    check_scale_format(scale_format)
    normed = norm_rows(x_TD, residual_TD, weight_D, eps, scale_format=scale_format, keep=False)
    return normed.q, normed.scales, normed.total
