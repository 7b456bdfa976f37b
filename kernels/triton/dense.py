"""Products with bfloat16 and float32 weights, a row's sums the same in every batch.

Tiles have one shape, and K is split in as many parts as the weight's shape asks for, whatever the
number of rows; a second kernel adds up the parts in order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.linear_small import REDUCED, sum_kernel
from leadline.kernels.triton.numerics import dot, narrow

TILE = {torch.bfloat16: (128, 64, 64), torch.float32: (64, 64, 16)}  # weight rows, tokens, K
PROGRAMS = 128  # that a product of one tile of tokens is dealt to
MIN_DEPTH = 256  # values of K that a part has at least


@triton.jit
def dense_kernel(
    x_ptr,
    w_ptr,
    y_ptr,
    num_tokens,
    num_rows,
    num_columns,
    x_stride,
    w_stride,
    part_size,
    block_n: tl.constexpr,
    block_t: tl.constexpr,
    block_k: tl.constexpr,
):
    """Program (n, t, p): part p of tile (n, t); y [parts, T, N]."""
    row = tl.program_id(0) * block_n + tl.arange(0, block_n)
    token = tl.program_id(1) * block_t + tl.arange(0, block_t)
    is_row, is_token = row < num_rows, token < num_tokens
    w_rows = w_ptr + row.to(tl.int64)[:, None] * w_stride
    x_rows = x_ptr + token.to(tl.int64)[None, :] * x_stride
    dtype: tl.constexpr = w_ptr.dtype.element_ty
    sums = tl.zeros((block_n, block_t), tl.float32)
    first = tl.program_id(2) * part_size
    for begin in range(first, tl.minimum(first + part_size, num_columns), block_k):
        k = begin + tl.arange(0, block_k)
        is_k = k < num_columns
        w = tl.load(w_rows + k[None, :], is_row[:, None] & is_k[None, :], 0.0)
        x = tl.load(x_rows + k[:, None], is_token[None, :] & is_k[:, None], 0.0)
        if x.dtype != dtype:
            x = x.to(dtype)
        sums += dot(w, x)
    y_rows = tl.program_id(2).to(tl.int64) * num_tokens + token
    y_offsets = y_rows[None, :] * num_rows + row[:, None]
    y = narrow(sums, y_ptr.dtype.element_ty)
    tl.store(y_ptr + y_offsets, y, is_row[:, None] & is_token[None, :])


def _multiply(x_TK: Tensor, weight_NK: Tensor, dtype: torch.dtype) -> Tensor:
    """`x @ weight.T` in `dtype`, in the weight's precision.

    Raises:
        TypeError: the weight is neither bfloat16 nor float32, or narrower than x.
    """
    if (
        weight_NK.dtype not in TILE
        or torch.promote_types(x_TK.dtype, weight_NK.dtype) != weight_NK.dtype
    ):
        raise TypeError(f"no product of {x_TK.dtype} with weights of {weight_NK.dtype}")
    x, weight = rows_of(x_TK), rows_of(weight_NK)
    (num_tokens, num_columns), num_rows = x.shape, weight.shape[0]
    y = torch.empty(*x_TK.shape[:-1], num_rows, dtype=dtype, device=x.device)
    if y.numel() == 0:
        return y
    block_n, block_t, block_k = TILE[weight.dtype]
    tiles = triton.cdiv(num_rows, block_n), triton.cdiv(num_tokens, block_t)
    num_parts = max(1, min(PROGRAMS // tiles[0], num_columns // MIN_DEPTH))
    part_size = triton.cdiv(triton.cdiv(num_columns, num_parts), block_k) * block_k
    num_parts = max(1, triton.cdiv(num_columns, part_size))
    parts = y
    if num_parts > 1:
        parts = torch.empty(num_parts, num_tokens, num_rows, dtype=torch.float32, device=x.device)
    dense_kernel[(*tiles, num_parts)](
        x,
        weight,
        parts,
        num_tokens,
        num_rows,
        num_columns,
        x.stride(0),
        weight.stride(0),
        part_size,
        block_n=block_n,
        block_t=block_t,
        block_k=block_k,
        num_warps=4,
        num_stages=3,
    )
    if num_parts > 1:
        grid = (triton.cdiv(y.numel(), REDUCED),)
        sum_kernel[grid](parts, y, y.numel(), num_parts, block=REDUCED)
    return y


def linear(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """See `api.Linear`; batch-invariant."""
    return _multiply(x_TK, weight_NK, x_TK.dtype)


def router_logits(x_TD: Tensor, gate_ED: Tensor) -> Tensor:
    """See `api.RouterLogits`; batch-invariant."""
    return _multiply(x_TD, gate_ED, torch.float32)


def vocab_logits(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """See `api.VocabLogits`; batch-invariant."""
    return _multiply(hidden_TD, head_VD, torch.float32)
