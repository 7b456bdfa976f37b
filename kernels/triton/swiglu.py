"""`silu(gate) * up`, with quantisation in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.launch import check_scale_format, rows_of
from leadline.kernels.triton.numerics import narrow, quantize_groups, sigmoid

GROUPS = 8  # groups of 128 columns of a program


@triton.jit
def swiglu_kernel(
    x_ptr,
    y_ptr,
    scales_ptr,
    x_stride,
    num_columns,
    num_groups,
    quantize: tl.constexpr,
    ue8m0: tl.constexpr,
    groups: tl.constexpr,
):
    """Program (t, b) does `groups` groups of row t; `y` is e4m3 where it quantises."""
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * groups + tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_columns
    x_ptr += row * x_stride
    gate = tl.load(x_ptr + columns, mask, 0.0).to(tl.float32)
    up = tl.load(x_ptr + num_columns + columns, mask, 0.0).to(tl.float32)
    y = narrow(gate * sigmoid(gate) * up, x_ptr.dtype.element_ty)
    if quantize:
        q, scales = quantize_groups(y.to(tl.float32), ue8m0)
        tl.store(y_ptr + row * num_columns + columns, q, mask)
        tl.store(scales_ptr + row * num_groups + group, scales, group < num_groups)
    else:
        tl.store(y_ptr + row * num_columns + columns, y, mask)


def _launch(x: Tensor, scale_format: str | None) -> tuple[Tensor, Tensor]:
    x = rows_of(x)
    num_rows, num_columns = x.shape[0], x.shape[1] // 2
    num_groups = -(-num_columns // 128)
    dtype = x.dtype if scale_format is None else torch.float8_e4m3fn
    y = torch.empty(num_rows, num_columns, dtype=dtype, device=x.device)
    num_scales = 0 if scale_format is None else num_groups
    scales = torch.empty(num_rows, num_scales, dtype=torch.float32, device=x.device)
    if y.numel():
        swiglu_kernel[(num_rows, triton.cdiv(num_groups, GROUPS))](
            x,
            y,
            scales,
            x.stride(0),
            num_columns,
            num_groups,
            quantize=scale_format is not None,
            ue8m0=scale_format == "ue8m0",
            groups=GROUPS,
        )
    return y, scales


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """See `api.Swiglu`."""
    return _launch(gate_up_T2F, None)[0].view(*gate_up_T2F.shape[:-1], gate_up_T2F.shape[-1] // 2)


def swiglu_fp8(gate_up_T2F: Tensor, scale_format: str = "fp32") -> tuple[Tensor, Tensor]:
    """`swiglu` and then `quantize_fp8`, in one pass: (float8_e4m3fn [T, F], float32 scales)."""
    check_scale_format(scale_format)
    return _launch(gate_up_T2F, scale_format)
