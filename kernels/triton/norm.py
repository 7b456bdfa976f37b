"""RMSNorm, with residual addition and quantisation in one pass."""

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
    scales_ptr,
    x_stride,
    residual_stride,
    num_columns,
    num_groups,
    eps,
    add: tl.constexpr,
    quantize: tl.constexpr,
    ue8m0: tl.constexpr,
    groups: tl.constexpr,
):
    """One row a program, as [groups, 128]; `y` is e4m3 where it quantises."""
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
        tl.store(y_ptr + row * num_columns + columns, q, mask)
        tl.store(scales_ptr + row * num_groups + group, scales, group < num_groups)
    else:
        tl.store(y_ptr + row * num_columns + columns, y, mask)


def _launch(
    x_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor, eps: float, scale_format: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(y, scales, x + residual); without a scale format y is not quantised."""
    x = rows_of(x_TD)
    add = residual_TD is not None
    residual = x if residual_TD is None else rows_of(residual_TD)
    dtype = torch.promote_types(x.dtype, residual.dtype)
    num_rows, num_columns = x.shape
    num_groups = -(-num_columns // 128)
    total = torch.empty(x.shape, dtype=dtype, device=x.device) if add else x
    y_dtype = dtype if scale_format is None else torch.float8_e4m3fn
    y = torch.empty(x.shape, dtype=y_dtype, device=x.device)
    num_scales = 0 if scale_format is None else num_groups
    scales = torch.empty(num_rows, num_scales, dtype=torch.float32, device=x.device)
    if x.numel():
        groups = triton.next_power_of_2(num_groups)
        norm_kernel[(num_rows,)](
            x,
            residual,
            weight_D.contiguous(),
            y,
            total,
            scales,
            x.stride(0),
            residual.stride(0),
            num_columns,
            num_groups,
            eps,
            add=add,
            quantize=scale_format is not None,
            ue8m0=scale_format == "ue8m0",
            groups=groups,
            num_warps=min(8, max(1, groups // 4)),
        )
    return y, scales, total


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See `api.RMSNorm`."""
    return _launch(x_TD, None, weight_D, eps, None)[0].view(x_TD.shape)


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `api.AddRMSNorm`."""
    y, _, total = _launch(x_TD, residual_TD, weight_D, eps, None)
    return y.view(x_TD.shape), total.view(x_TD.shape)


def add_rms_norm_fp8(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, scale_format: str = "fp32"
) -> tuple[Tensor, Tensor, Tensor]:
    """`add_rms_norm` and then `quantize_fp8`, in one pass.

    Returns:
        (float8_e4m3fn [T, D], float32 scales [T, ceil(D / 128)], x + residual).
    """
    check_scale_format(scale_format)
    return _launch(x_TD, residual_TD, weight_D, eps, scale_format)
