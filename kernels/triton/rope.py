"""Rotary position embedding on interleaved pairs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.numerics import narrow


@triton.jit
def rope_kernel(
    x_ptr,
    cos_ptr,
    sin_ptr,
    y_ptr,
    x_stride_t,
    x_stride_h,
    angle_stride,
    num_heads,
    num_columns,
    heads: tl.constexpr,
    columns: tl.constexpr,
):
    """Program (t, b) rotates `heads` heads of token t."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * heads + tl.arange(0, heads)
    column = tl.arange(0, columns)
    pair = tl.arange(0, columns // 2)
    mask = (head[:, None] < num_heads) & (column[None, :] < num_columns)
    x_offsets = token * x_stride_t + head[:, None] * x_stride_h + column[None, :]
    x = tl.load(x_ptr + x_offsets, mask, 0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(x, (heads, columns // 2, 2)))
    pair_mask = pair < num_columns // 2
    cos = tl.load(cos_ptr + token * angle_stride + pair, pair_mask, 0.0)[None, :]
    sin = tl.load(sin_ptr + token * angle_stride + pair, pair_mask, 0.0)[None, :]
    rotated = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    y = narrow(tl.reshape(rotated, (heads, columns)), x_ptr.dtype.element_ty)
    y_rows = token * num_heads + head
    tl.store(y_ptr + y_rows[:, None] * num_columns + column[None, :], y, mask)


def apply_rope(x_THR: Tensor, cos_TR2: Tensor, sin_TR2: Tensor) -> Tensor:
    """See `api.ApplyRope`."""
    x = x_THR if x_THR.stride(-1) == 1 else x_THR.contiguous()
    num_tokens, num_heads, num_columns = x.shape
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    cos, sin = cos_TR2.contiguous(), sin_TR2.contiguous()
    if x.numel():
        heads = min(16, triton.next_power_of_2(num_heads))
        rope_kernel[(num_tokens, triton.cdiv(num_heads, heads))](
            x,
            cos,
            sin,
            y,
            x.stride(0),
            x.stride(1),
            cos.stride(0),
            num_heads,
            num_columns,
            heads=heads,
            columns=triton.next_power_of_2(num_columns),
            num_warps=2,
        )
    return y
