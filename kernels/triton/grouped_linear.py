"""FP8 product of each expert's rows with its own weight, in one launch of fixed size.

Rows are counted on the device: a program finds its tiles' experts in the counts, so that the launch
is the same for every routing and can be captured in a CUDA graph.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from leadline.kernels.triton.launch import num_multiprocessors
from leadline.kernels.triton.numerics import dot, narrow
from leadline.kernels.types import QuantTensor

BLOCK_N = 128  # weight rows of a tile
MAX_TOKENS = 128  # of a tile
MAX_SWAPPED = 32  # tokens that go on the narrow side of a product


@triton.jit
def grouped_kernel(
    x_ptr,
    x_scales_ptr,
    w_tiles,
    w_scales_ptr,
    counts_ptr,
    y_ptr,
    num_experts,
    num_rows,
    num_columns,
    num_blocks,
    w_scales_stride_e,
    w_scales_stride_n,
    row_offset,
    rows_of_expert,
    num_programs,
    masked: tl.constexpr,
    swap: tl.constexpr,
    experts: tl.constexpr,
    block_t: tl.constexpr,
    block_n: tl.constexpr,
):
    """Tiles of all experts are dealt to the programs in turn; `swap`: tile [weight rows, tokens].

    Masked, expert e has `rows_of_expert` places, of which the first `counts[e]` are filled; else
    its rows follow those of expert e - 1.
    """
    experts_e = tl.arange(0, experts)
    counts = tl.load(counts_ptr + experts_e, experts_e < num_experts, 0).to(tl.int32)
    tiles = tl.cdiv(counts, block_t)
    tile_ends, row_ends = tl.cumsum(tiles, axis=0), tl.cumsum(counts, axis=0)
    tiles_n = tl.cdiv(num_rows, block_n)
    for tile in tl.range(tl.program_id(0), tl.sum(tiles, axis=0) * tiles_n, num_programs):
        tile_t, first_n = tile // tiles_n, tile % tiles_n * block_n
        expert = tl.sum((tile_ends <= tile_t).to(tl.int32), axis=0)
        mine = experts_e == expert
        count = tl.sum(tl.where(mine, counts, 0), axis=0)
        if masked:
            first_row = expert * rows_of_expert
        else:
            first_row = tl.sum(tl.where(mine, row_ends - counts, 0), axis=0)
        inside = (tile_t - tl.sum(tl.where(mine, tile_ends - tiles, 0), axis=0)) * block_t
        inside += tl.arange(0, block_t)
        is_token = inside < count
        token = (first_row + inside).to(tl.int64)
        n = first_n + tl.arange(0, block_n)
        is_n = n < num_rows
        x_rows = x_ptr + token[:, None] * num_columns
        x_scale_rows = x_scales_ptr + token * num_blocks
        w_scale_rows = w_scales_ptr + expert.to(tl.int64) * w_scales_stride_e
        w_scale_rows += (n + row_offset) // 128 * w_scales_stride_n
        sums = tl.zeros((block_n, block_t) if swap else (block_t, block_n), tl.float32)
        for block in range(num_blocks):
            k = block * 128 + tl.arange(0, 128)
            x = tl.load(x_rows + k[None, :], is_token[:, None] & (k < num_columns)[None, :], 0.0)
            w = w_tiles.load([expert * num_rows + first_n, block * 128])
            x_scales = tl.load(x_scale_rows + block, is_token, 0.0)
            w_scales = tl.load(w_scale_rows + block, is_n, 0.0)
            if swap:
                sums += dot(w, x.T) * w_scales[:, None] * x_scales[None, :]
            else:
                sums += dot(x, w.T) * x_scales[:, None] * w_scales[None, :]
        if swap:
            sums = sums.T
        y_offsets = token[:, None] * num_rows + n[None, :]
        y = narrow(sums, y_ptr.dtype.element_ty)
        tl.store(y_ptr + y_offsets, y, is_token[:, None] & is_n[None, :])


def can_take(weight_ENK: QuantTensor) -> bool:
    """Tensor descriptors need rows that start on 16 bytes; blocks must begin with the columns."""
    data = weight_ENK.data
    starts = (data.stride(1), data.data_ptr())
    dense = data.is_contiguous() and weight_ENK.scale.stride(-1) == 1
    return dense and not weight_ENK.col_offset and not any(start % 16 for start in starts)


def grouped_linear(
    q_RK: Tensor,
    scales: Tensor,
    counts: Tensor,
    weight_ENK: QuantTensor,
    dtype: torch.dtype,
    rows_of_expert: int | None = None,
    block_t: int | None = None,
) -> Tensor:
    """Product of quantised rows (see `api.QuantizeFP8`) with the weight of each one's expert.

    Args:
        q_RK: rows sorted by expert; with `rows_of_expert`, so many places for each.
        scales: of the rows.
        counts: rows of each expert, int64 [E], on the device of the rows.
        weight_ENK: see `can_take`.
        dtype: of the result.
        rows_of_expert: places of each expert; those that it does not fill are not computed.
        block_t: rows of a tile; else by how many an expert has on average.

    Returns:
        [R, N]; places that are not filled hold any bits.
    """
    num_places, num_columns = q_RK.shape
    num_experts, num_rows = weight_ENK.shape[:2]
    y = torch.empty(num_places, num_rows, dtype=dtype, device=q_RK.device)
    expected = triton.next_power_of_2(max(1, triton.cdiv(num_places, num_experts)))
    block_t = block_t or min(MAX_TOKENS, max(16, expected))
    num_programs = num_multiprocessors(q_RK.device)
    grouped_kernel[(num_programs,)](
        q_RK,
        scales,
        TensorDescriptor.from_tensor(weight_ENK.data.flatten(0, 1), [BLOCK_N, 128]),
        weight_ENK.scale,
        counts,
        y,
        num_experts,
        num_rows,
        num_columns,
        scales.shape[1],
        weight_ENK.scale.stride(0),
        weight_ENK.scale.stride(1),
        weight_ENK.row_offset,
        rows_of_expert or 0,
        num_programs,
        masked=rows_of_expert is not None,
        swap=block_t <= MAX_SWAPPED,
        experts=triton.next_power_of_2(num_experts),
        block_t=block_t,
        block_n=BLOCK_N,
        num_warps=4 if block_t <= MAX_SWAPPED else 8,
        num_stages=4,
    )
    return y
