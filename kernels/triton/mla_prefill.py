"""Expanded latent attention of rows with many new tokens.

Keys and values of each head are rebuilt from the cached latents, a bounded number of slots at a
time, by two products; each such chunk goes on with the softmax where the one before left it.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.cache import read_pages
from leadline.kernels.triton.mla_decode import LOG2_E
from leadline.kernels.triton.numerics import dot, narrow

QUERIES = {torch.float32: 32, torch.bfloat16: 128}  # of a tile
KEYS = {torch.float32: 32, torch.bfloat16: 64}


@dataclass(slots=True)
class PrefillChunk:
    """Some pages of some rows, and the tiles of queries that see them.

    Attributes:
        page_ids: int64, the pages to expand.
        tiles: int32 [N, 6]: first query token, its position, number of queries; first expanded
            slot, its position, end position of the keys.
    """

    page_ids: Tensor
    tiles: Tensor


def plan_prefill(
    meta: AttentionMeta, rows: list[int], tile_size: int, page_size: int, max_pages: int
) -> list[PrefillChunk]:
    """Cuts the pages of `rows` in chunks of at most `max_pages`; queries see no later ones."""
    chunks: list[tuple[list[Tensor], list[tuple[int, ...]]]] = [([], [])]
    free = max_pages
    for row in rows:
        first_token, length = sum(meta.query_lens[:row]), meta.seq_lens[row]
        query_len, num_pages = meta.query_lens[row], -(-length // page_size)
        page = 0
        while page < num_pages:
            if free == 0:
                chunks.append(([], []))
                free = max_pages
            taken = min(free, num_pages - page)
            pages, tiles = chunks[-1]
            slot, begin = (max_pages - free) * page_size, page * page_size
            end = min(length, (page + taken) * page_size)
            pages.append(meta.page_table[row, page : page + taken])
            for offset in range(0, query_len, tile_size):
                position, size = length - query_len + offset, min(tile_size, query_len - offset)
                if position + size > begin:
                    tiles.append((first_token + offset, position, size, slot, begin, end))
            page += taken
            free -= taken
    device = meta.page_table.device
    return [
        PrefillChunk(torch.cat(pages), torch.tensor(tiles, dtype=torch.int32).to(device))
        for pages, tiles in chunks
        if pages
    ]


@triton.jit
def prefill_kernel(
    q_nope_ptr,
    q_rope_ptr,
    k_nope_ptr,
    k_rope_ptr,
    v_ptr,
    tiles_ptr,
    o_ptr,
    lse_ptr,
    first_slot,
    scale,
    num_heads,
    k_rope_stride,
    num_nope: tl.constexpr,
    num_rope: tl.constexpr,
    num_value: tl.constexpr,
    nope_columns: tl.constexpr,
    rope_columns: tl.constexpr,
    value_columns: tl.constexpr,
    tile_size: tl.constexpr,
    block_s: tl.constexpr,
):
    """Program (n, h): tile n of one head; `o` and `lse` (base 2) hold what went before."""
    tiles_ptr += tl.program_id(0) * 6
    head = tl.program_id(1)
    token, first, size = tl.load(tiles_ptr), tl.load(tiles_ptr + 1), tl.load(tiles_ptr + 2)
    slot, begin, end = tl.load(tiles_ptr + 3), tl.load(tiles_ptr + 4), tl.load(tiles_ptr + 5)
    place = tl.arange(0, tile_size)
    is_query = place < size
    position = first + place
    flat = ((token + place) * num_heads + head).to(tl.int64)
    n, r, v = tl.arange(0, nope_columns), tl.arange(0, rope_columns), tl.arange(0, value_columns)
    n_mask, r_mask, v_mask = n < num_nope, r < num_rope, v < num_value
    q_nope_ptr += flat[:, None] * num_nope + n[None, :]
    q_rope_ptr += flat[:, None] * num_rope + r[None, :]
    o_ptr += flat[:, None] * num_value + v[None, :]
    q_nope = tl.load(q_nope_ptr, is_query[:, None] & n_mask[None, :], 0.0)
    q_rope = tl.load(q_rope_ptr, is_query[:, None] & r_mask[None, :], 0.0)
    top = tl.load(lse_ptr + flat, is_query, -float("inf"))
    total = tl.where(top == -float("inf"), 0.0, 1.0)
    sums = tl.load(o_ptr, is_query[:, None] & v_mask[None, :], 0.0)
    for start in range(begin, tl.minimum(end, first + size), block_s):
        key = start + tl.arange(0, block_s)
        is_key = (key < end) & (key >= first_slot)
        row = (slot + key - begin).to(tl.int64)
        head_row = row * num_heads + head
        k_nope = tl.load(
            k_nope_ptr + head_row[:, None] * num_nope + n[None, :],
            is_key[:, None] & n_mask[None, :],
            0.0,
        )
        k_rope = tl.load(
            k_rope_ptr + row[:, None] * k_rope_stride + r[None, :],
            is_key[:, None] & r_mask[None, :],
            0.0,
        )
        scores = (dot(q_nope, tl.trans(k_nope)) + dot(q_rope, tl.trans(k_rope))) * scale
        visible = is_key[None, :] & (key[None, :] <= position[:, None])
        scores = tl.where(visible, scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        base = tl.where(new_top == -float("inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        decay = tl.exp2(top - base)
        total = total * decay + tl.sum(weights, axis=1)
        values = tl.load(
            v_ptr + head_row[:, None] * num_value + v[None, :],
            is_key[:, None] & v_mask[None, :],
            0.0,
        )
        sums = sums * decay[:, None] + dot(narrow(weights, values.dtype), values)
        top = new_top
    o = sums / tl.where(total == 0.0, 1.0, total)[:, None]
    lse = tl.where(total == 0.0, -float("inf"), top + tl.log2(total))
    tl.store(o_ptr, o, is_query[:, None] & v_mask[None, :])
    tl.store(lse_ptr + flat, lse, is_query)


def attend_prefill(
    q_nope_THN: Tensor,
    q_rope_THR: Tensor,
    cache: LatentCacheLayer,
    projection: MLAProjection,
    chunks: list[PrefillChunk],
    *,
    scale: float,
    first_slot: int,
) -> Tensor:
    """Attention of the chunks' rows: float32 o_THV; the other tokens' are zeros."""
    num_tokens, num_heads, num_nope = q_nope_THN.shape
    num_value, num_latent = projection.w_uv_HVC.shape[1:]
    num_rope, dtype, device = q_rope_THR.shape[-1], q_nope_THN.dtype, q_nope_THN.device
    o = torch.zeros(num_tokens, num_heads, num_value, dtype=torch.float32, device=device)
    lse = torch.full((num_tokens, num_heads), -torch.inf, device=device)
    w_uk = projection.w_uk_HNC.to(dtype).flatten(0, 1)
    w_uv = projection.w_uv_HVC.to(dtype).flatten(0, 1)
    for chunk in chunks:
        entries = read_pages(cache, chunk.page_ids, dtype).flatten(0, 1)
        latent, k_rope = entries[:, :num_latent], entries[:, num_latent:]
        prefill_kernel[(len(chunk.tiles), num_heads)](
            q_nope_THN,
            q_rope_THR,
            latent @ w_uk.T,
            k_rope,
            latent @ w_uv.T,
            chunk.tiles,
            o,
            lse,
            first_slot,
            scale * LOG2_E,
            num_heads,
            k_rope.stride(0),
            num_nope=num_nope,
            num_rope=num_rope,
            num_value=num_value,
            nope_columns=triton.next_power_of_2(num_nope),
            rope_columns=triton.next_power_of_2(num_rope),
            value_columns=triton.next_power_of_2(num_value),
            tile_size=QUERIES[dtype],
            block_s=KEYS[dtype],
            num_warps=8,
            num_stages=2,
        )
    return o
