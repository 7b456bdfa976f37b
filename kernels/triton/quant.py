"""FP8 quantisation of activations, alone."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.launch import check_scale_format, rows_of
from leadline.kernels.triton.numerics import quantize_groups

GROUP = 128
GROUPS = 8  # groups of a program


@triton.jit
def quantize_kernel(
    x_ptr,
    q_ptr,
    scales_ptr,
    x_stride,
    num_columns,
    num_groups,
    ue8m0: tl.constexpr,
    groups: tl.constexpr,
):
    """Program (t, b) quantises `groups` groups of row t."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * groups + tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_columns
    x = tl.load(x_ptr + row * x_stride + columns, mask, 0.0).to(tl.float32)
    q, scales = quantize_groups(x, ue8m0)
    tl.store(q_ptr + row * num_columns + columns, q, mask)
    tl.store(scales_ptr + row * num_groups + group, scales, group < num_groups)


def quantize_fp8(x_TK: Tensor, scale_format: str = "fp32") -> tuple[Tensor, Tensor]:
    """See `api.QuantizeFP8`."""
    check_scale_format(scale_format)
    x = rows_of(x_TK)
    num_rows, num_columns = x.shape
    num_groups = -(-num_columns // GROUP)
    quantized = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(num_rows, num_groups, device=x.device)
    if x.numel():
        grid = (num_rows, triton.cdiv(num_groups, GROUPS))
        quantize_kernel[grid](
            x,
            quantized,
            scales,
            x.stride(0),
            num_columns,
            num_groups,
            ue8m0=scale_format == "ue8m0",
            groups=GROUPS,
        )
    return quantized.view(x_TK.shape), scales.view(*x_TK.shape[:-1], num_groups)
