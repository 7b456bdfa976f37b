"""FP8 product for few tokens: a weight is read once, by as many programs as the GPU has room for.

The tile is [weight rows, tokens], so that 16 tokens are enough to fill it. Where the weight has too
few rows for all multiprocessors, K is split, and a second kernel adds up the parts in order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.launch import num_multiprocessors
from leadline.kernels.triton.numerics import dot, narrow
from leadline.kernels.types import QuantTensor

BLOCK_N = 128  # weight rows of a tile
MAX_TOKENS = 64  # of a tile; with more, sums and products fill the registers
MIN_BLOCKS = 4  # blocks of K that a part has at least
PROGRAMS = 128  # that an invariant product of one tile of tokens is dealt to
REDUCED = 1024  # values of a program of the second kernel


@triton.jit
def small_kernel(
    x_ptr,
    x_scales_ptr,
    w_ptr,
    w_scales_ptr,
    y_ptr,
    num_tokens,
    num_rows,
    num_columns,
    w_stride,
    w_scales_stride,
    row_offset,
    num_blocks,
    blocks_per_part,
    block_t: tl.constexpr,
    block_n: tl.constexpr,
):
    """Program (t, n, p): part p of tile (t, n); y [parts, T, N]."""
    row = tl.program_id(1) * block_n + tl.arange(0, block_n)
    token = tl.program_id(0) * block_t + tl.arange(0, block_t)
    is_row, is_token = row < num_rows, token < num_tokens
    w_rows = w_ptr + row.to(tl.int64)[:, None] * w_stride
    x_rows = x_ptr + token.to(tl.int64)[None, :] * num_columns
    w_scale_rows = w_scales_ptr + (row + row_offset) // 128 * w_scales_stride
    x_scale_rows = x_scales_ptr + token * num_blocks
    sums = tl.zeros((block_n, block_t), tl.float32)
    first = tl.program_id(2) * blocks_per_part
    for block in range(first, tl.minimum(first + blocks_per_part, num_blocks)):
        k = block * 128 + tl.arange(0, 128)
        is_k = k < num_columns
        w = tl.load(w_rows + k[None, :], is_row[:, None] & is_k[None, :], 0.0)
        x = tl.load(x_rows + k[:, None], is_token[None, :] & is_k[:, None], 0.0)
        w_scales = tl.load(w_scale_rows + block, is_row, 0.0)
        x_scales = tl.load(x_scale_rows + block, is_token, 0.0)
        sums += dot(w, x) * w_scales[:, None] * x_scales[None, :]
    y_rows = tl.program_id(2).to(tl.int64) * num_tokens + token
    y = narrow(sums, y_ptr.dtype.element_ty)
    y_offsets = y_rows[None, :] * num_rows + row[:, None]
    tl.store(y_ptr + y_offsets, y, is_row[:, None] & is_token[None, :])


@triton.jit
def sum_kernel(parts_ptr, y_ptr, size, num_parts, block: tl.constexpr):
    """y[i] = parts[0, i] + parts[1, i] + ..., in this order."""
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = i < size
    total = tl.load(parts_ptr + i, mask, 0.0)
    for part in range(1, num_parts):
        total += tl.load(parts_ptr + part * size + i, mask, 0.0)
    tl.store(y_ptr + i, narrow(total, y_ptr.dtype.element_ty), mask)


def split(num_tiles: int, num_blocks: int, num_programs: int) -> tuple[int, int]:
    """(parts, blocks of each) for K of `num_blocks` blocks."""
    wanted = max(1, min(num_programs // max(1, num_tiles), num_blocks // MIN_BLOCKS))
    blocks_per_part = -(-num_blocks // wanted)
    return max(1, -(-num_blocks // blocks_per_part)), blocks_per_part


def linear_small(
    q_TK: Tensor,
    scales: Tensor,
    weight_NK: QuantTensor,
    dtype: torch.dtype,
    *,
    is_invariant: bool = False,
) -> Tensor:
    """Product of quantised activations (see `api.QuantizeFP8`) and a weight: [T, N] in `dtype`.

    An invariant one has one tile, and splits K as the weight's shape asks for, so that a row has
    the same bits in every batch.
    """
    num_tokens, num_columns = q_TK.shape
    num_rows, num_blocks = weight_NK.shape[0], scales.shape[1]
    device = q_TK.device
    block_t = min(MAX_TOKENS, max(16, triton.next_power_of_2(num_tokens)))
    block_t = MAX_TOKENS if is_invariant else block_t
    tiles = triton.cdiv(num_tokens, block_t), triton.cdiv(num_rows, BLOCK_N)
    num_tiles, num_programs = tiles[0] * tiles[1], num_multiprocessors(device)
    if is_invariant:
        num_tiles, num_programs = tiles[1], PROGRAMS
    num_parts, blocks_per_part = split(num_tiles, num_blocks, num_programs)
    y = torch.empty(num_tokens, num_rows, dtype=dtype, device=device)
    parts = y
    if num_parts > 1:
        parts = torch.empty(num_parts, num_tokens, num_rows, dtype=torch.float32, device=device)
    small_kernel[(*tiles, num_parts)](
        q_TK,
        scales,
        weight_NK.data,
        weight_NK.scale,
        parts,
        num_tokens,
        num_rows,
        num_columns,
        weight_NK.data.stride(0),
        weight_NK.scale.stride(0),
        weight_NK.row_offset,
        num_blocks,
        blocks_per_part,
        block_t=block_t,
        block_n=BLOCK_N,
        num_warps=4,
        num_stages=4,
    )
    if num_parts > 1:
        grid = (triton.cdiv(y.numel(), REDUCED),)
        sum_kernel[grid](parts, y, y.numel(), num_parts, block=REDUCED)
    return y
