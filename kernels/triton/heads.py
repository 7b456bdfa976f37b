"""Product of each head's rows with that head's weight; a row has the same bits in every batch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.numerics import dot, narrow

TILE = {torch.bfloat16: (64, 64, 64), torch.float32: (64, 64, 16)}  # tokens, columns, K


@triton.jit
def heads_kernel(
    x_ptr,
    w_ptr,
    y_ptr,
    num_tokens,
    num_columns,
    depth,
    num_heads,
    x_token_stride,
    x_head_stride,
    w_head_stride,
    w_depth_stride,
    w_column_stride,
    block_t: tl.constexpr,
    block_n: tl.constexpr,
    block_k: tl.constexpr,
):
    """Program (n, t, h): tile (t, n) of head h; y [T, H, N]."""
    column = tl.program_id(0) * block_n + tl.arange(0, block_n)
    token = tl.program_id(1) * block_t + tl.arange(0, block_t)
    head = tl.program_id(2).to(tl.int64)
    is_column, is_token = column < num_columns, token < num_tokens
    x_rows = x_ptr + head * x_head_stride + token.to(tl.int64)[:, None] * x_token_stride
    w_columns = w_ptr + head * w_head_stride + column[None, :] * w_column_stride
    sums = tl.zeros((block_t, block_n), tl.float32)
    for begin in range(0, depth, block_k):
        k = begin + tl.arange(0, block_k)
        is_k = k < depth
        x = tl.load(x_rows + k[None, :], is_token[:, None] & is_k[None, :], 0.0)
        w = tl.load(
            w_columns + k[:, None] * w_depth_stride, is_k[:, None] & is_column[None, :], 0.0
        )
        sums += dot(x, w)
    y_rows = (token.to(tl.int64) * num_heads + head) * num_columns
    y = narrow(sums, y_ptr.dtype.element_ty)
    tl.store(y_ptr + y_rows[:, None] + column[None, :], y, is_token[:, None] & is_column[None, :])


def multiply_heads(x_THK: Tensor, weight_HKN: Tensor) -> Tensor:
    """`y[t, h] = x[t, h] @ weight[h]`: [T, H, N] in the dtype of both."""
    x = x_THK if x_THK.stride(-1) == 1 else x_THK.contiguous()
    (num_tokens, num_heads, depth), num_columns = x.shape, weight_HKN.shape[2]
    y = torch.empty(num_tokens, num_heads, num_columns, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    block_t, block_n, block_k = TILE[x.dtype]
    grid = (triton.cdiv(num_columns, block_n), triton.cdiv(num_tokens, block_t), num_heads)
    heads_kernel[grid](
        x,
        weight_HKN,
        y,
        num_tokens,
        num_columns,
        depth,
        num_heads,
        x.stride(0),
        x.stride(1),
        *weight_HKN.stride(),
        block_t=block_t,
        block_n=block_n,
        block_k=block_k,
        num_warps=4,
        num_stages=3,
    )
    return y
