"""FP8 product for many tokens: a persistent kernel whose tiles come through tensor descriptors."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from leadline.kernels.triton.launch import num_multiprocessors
from leadline.kernels.triton.numerics import dot, narrow
from leadline.kernels.types import QuantTensor

BLOCK_T, BLOCK_N = 128, 128
BAND = 8  # tiles of tokens that go through all weight rows together: both stay in the L2 cache


@triton.jit
def large_kernel(
    x_tiles,
    x_scales_ptr,
    w_tiles,
    w_scales_ptr,
    y_ptr,
    num_tokens,
    num_rows,
    w_scales_stride,
    row_offset,
    num_blocks,
    num_programs,
    block_t: tl.constexpr,
    block_n: tl.constexpr,
    band: tl.constexpr,
):
    """Tiles are dealt to the programs in turn."""
    tiles_t, tiles_n = tl.cdiv(num_tokens, block_t), tl.cdiv(num_rows, block_n)
    for tile in tl.range(tl.program_id(0), tiles_t * tiles_n, num_programs):
        first = tile // (band * tiles_n) * band
        width = tl.minimum(tiles_t - first, band)
        inside = tile % (band * tiles_n)
        first_token, first_row = (first + inside % width) * block_t, inside // width * block_n
        token = first_token + tl.arange(0, block_t)
        row = first_row + tl.arange(0, block_n)
        is_token, is_row = token < num_tokens, row < num_rows
        x_scale_rows = x_scales_ptr + token.to(tl.int64) * num_blocks
        w_scale_rows = w_scales_ptr + (row + row_offset) // 128 * w_scales_stride
        sums = tl.zeros((block_t, block_n), tl.float32)
        for block in range(num_blocks):
            x = x_tiles.load([first_token, block * 128])
            w = w_tiles.load([first_row, block * 128])
            x_scales = tl.load(x_scale_rows + block, is_token, 0.0)
            w_scales = tl.load(w_scale_rows + block, is_row, 0.0)
            sums += dot(x, w.T) * x_scales[:, None] * w_scales[None, :]
        y = narrow(sums, y_ptr.dtype.element_ty)
        y_offsets = token.to(tl.int64)[:, None] * num_rows + row[None, :]
        tl.store(y_ptr + y_offsets, y, is_token[:, None] & is_row[None, :])


def can_take(q_TK: Tensor, weight_NK: QuantTensor) -> bool:
    """Tensor descriptors need rows that start on 16 bytes."""
    starts = (q_TK.stride(0), q_TK.data_ptr(), weight_NK.data.stride(0), weight_NK.data.data_ptr())
    return not any(start % 16 for start in starts)


def linear_large(
    q_TK: Tensor, scales: Tensor, weight_NK: QuantTensor, dtype: torch.dtype
) -> Tensor:
    """Product of quantised activations (see `api.QuantizeFP8`) and a weight: [T, N] in `dtype`."""
    num_tokens, num_rows = q_TK.shape[0], weight_NK.shape[0]
    y = torch.empty(num_tokens, num_rows, dtype=dtype, device=q_TK.device)
    num_tiles = triton.cdiv(num_tokens, BLOCK_T) * triton.cdiv(num_rows, BLOCK_N)
    num_programs = min(num_multiprocessors(q_TK.device), num_tiles)
    large_kernel[(num_programs,)](
        TensorDescriptor.from_tensor(q_TK, [BLOCK_T, 128]),
        scales,
        TensorDescriptor.from_tensor(weight_NK.data, [BLOCK_N, 128]),
        weight_NK.scale,
        y,
        num_tokens,
        num_rows,
        weight_NK.scale.stride(0),
        weight_NK.row_offset,
        scales.shape[1],
        num_programs,
        block_t=BLOCK_T,
        block_n=BLOCK_N,
        band=BAND,
        num_warps=8,
        num_stages=4,
    )
    return y
