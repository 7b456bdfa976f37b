"""Absorbed latent attention of rows with few new tokens, over pages as they lie.

The new tokens of a request and all their heads share one key a slot, so they fill the rows of a
tile together. Long contexts are split among programs, and the parts merged by a second kernel
(Flash-Decoding; DeepSeek-V2, section 2.1).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.cache import layout_constants
from leadline.kernels.triton.launch import num_multiprocessors
from leadline.kernels.triton.numerics import dot, narrow

MIN_TILE, MAX_TILE = 16, 64  # rows; with more, the sums fill the registers
LOG2_E = 1.4426950408889634
KEYS = {torch.float32: 16, torch.bfloat16: 32}  # slots of a tile
MIN_PAGES = 2  # pages that a part has at least
INVARIANT_PAGES = 32  # pages of a part where a query's bits must not depend on the batch


@dataclass(slots=True)
class DecodePlan:
    """What the programs of one step do.

    Attributes:
        items: int32 [W, 8], one program each: the flat index (token * heads + head) of its row's
            first query, the row's number of those, the first that the program takes, the row of the
            page table, sequence length, new tokens, first key, end of the keys. Zeros are an item
            that does nothing.
        tiles: int32 [N, 4], one for each tile of queries: its first item, how many it has, its
            first flat query, its number of queries.
        is_split: some tile has more than one item.
    """

    items: Tensor
    tiles: Tensor
    tile_size: int
    is_split: bool


def plan_decode(
    meta: AttentionMeta,
    rows: list[int],
    num_heads: int,
    page_size: int,
    *,
    is_fixed: bool = False,
    is_invariant: bool = False,
) -> DecodePlan:
    """Deals the pages of `rows` of a batch evenly to the multiprocessors.

    An invariant plan has tiles and parts of one size, whatever the batch.

    The size of a fixed plan depends on the rows' new tokens alone, not on how long they are: with
    each tile's last part, there are never more items than multiprocessors and tiles together.
    """
    device = meta.page_table.device
    begins = [0]
    for query_len in meta.query_lens:
        begins.append(begins[-1] + query_len)
    most = max(meta.query_lens[row] for row in rows) * num_heads
    # Between these, tensor cores take no tile of 32 rows by warp groups, and registers spill.
    tile_size = MIN_TILE if most <= MIN_TILE and not is_invariant else MAX_TILE
    num_pages = {row: -(-meta.seq_lens[row] // page_size) for row in rows}
    num_tiles = {row: -(-meta.query_lens[row] * num_heads // tile_size) for row in rows}
    total = sum(num_pages[row] * num_tiles[row] for row in rows)
    pages_per_part = max(MIN_PAGES, -(-total // num_multiprocessors(device)))
    pages_per_part = INVARIANT_PAGES if is_invariant else pages_per_part
    items: list[tuple[int, ...]] = []
    tiles: list[tuple[int, ...]] = []
    for row in rows:
        length, query_len = meta.seq_lens[row], meta.query_lens[row]
        num_queries, first = query_len * num_heads, begins[row] * num_heads
        for tile in range(num_tiles[row]):
            offset = tile * tile_size
            first_item = len(items)
            for page in range(0, num_pages[row], pages_per_part):
                keys = page * page_size, min(length, (page + pages_per_part) * page_size)
                items.append((first, num_queries, offset, row, length, query_len, *keys))
            size = min(tile_size, num_queries - offset)
            tiles.append((first_item, len(items) - first_item, first + offset, size))
    if is_fixed:
        items += [(0,) * 8] * (num_multiprocessors(device) + len(tiles) - len(items))
    return DecodePlan(
        items=torch.tensor(items, dtype=torch.int32).to(device),
        tiles=torch.tensor(tiles, dtype=torch.int32).to(device),
        tile_size=tile_size,
        is_split=is_fixed or is_invariant or len(items) > len(tiles),
    )


@triton.jit
def load_entries(
    entry_ptr,
    mask,
    num_latent: tl.constexpr,
    num_rope: tl.constexpr,
    fp8: tl.constexpr,
    block_c: tl.constexpr,
    rope_columns: tl.constexpr,
    dtype: tl.constexpr,
):
    """(latents [S, block_c], rotated keys [S, rope_columns]) of S slots; zeros where masked."""
    c, r = tl.arange(0, block_c), tl.arange(0, rope_columns)
    c_mask = mask[:, None] & (c < num_latent)[None, :]
    r_mask = mask[:, None] & (r < num_rope)[None, :]
    if fp8:
        num_groups: tl.constexpr = (num_latent + 127) // 128
        values = tl.load(entry_ptr[:, None] + c[None, :], c_mask, 0).to(tl.float8e4nv, bitcast=True)
        scales_ptr = (entry_ptr + num_latent).to(tl.pointer_type(tl.float32))
        groups: tl.constexpr = max(block_c // 128, 1)
        group = tl.arange(0, groups)
        g_mask = mask[:, None] & (group < num_groups)[None, :]
        scales = tl.load(scales_ptr[:, None] + group[None, :], g_mask, 0.0)
        grouped = tl.reshape(values.to(tl.float32), (mask.shape[0], groups, block_c // groups))
        latent = narrow(tl.reshape(grouped * scales[:, :, None], (mask.shape[0], block_c)), dtype)
        halves_ptr = (entry_ptr + num_latent + 4 * num_groups).to(tl.pointer_type(tl.bfloat16))
        rope = tl.load(halves_ptr[:, None] + r[None, :], r_mask, 0.0)
    else:
        latent = tl.load(entry_ptr[:, None] + c[None, :], c_mask, 0.0)
        rope = tl.load(entry_ptr[:, None] + num_latent + r[None, :], r_mask, 0.0)
        if latent.dtype != dtype:
            latent = narrow(latent.to(tl.float32), dtype)
    if rope.dtype != dtype:
        rope = narrow(rope.to(tl.float32), dtype)
    return latent, rope


@triton.jit
def decode_kernel(
    q_latent_ptr,
    q_rope_ptr,
    pages_ptr,
    page_table_ptr,
    items_ptr,
    o_ptr,
    lse_ptr,
    table_stride,
    page_size,
    slot_width,
    first_slot,
    scale,
    num_heads,
    num_latent: tl.constexpr,
    num_rope: tl.constexpr,
    fp8: tl.constexpr,
    split: tl.constexpr,
    tile_size: tl.constexpr,
    block_s: tl.constexpr,
    block_c: tl.constexpr,
    rope_columns: tl.constexpr,
):
    """One item of the plan. `scale` has log2(e) in it; `lse` is to base 2."""
    items_ptr += tl.program_id(0) * 8
    first, num_queries, offset = tl.load(items_ptr), tl.load(items_ptr + 1), tl.load(items_ptr + 2)
    row, length, query_len = tl.load(items_ptr + 3), tl.load(items_ptr + 4), tl.load(items_ptr + 5)
    begin, end = tl.load(items_ptr + 6), tl.load(items_ptr + 7)
    if num_queries == 0:
        return
    place = tl.arange(0, tile_size)
    query = offset + place
    is_query = query < num_queries
    position = length - query_len + query // num_heads
    flat = (first + query).to(tl.int64)
    c, r = tl.arange(0, block_c), tl.arange(0, rope_columns)
    c_mask = is_query[:, None] & (c < num_latent)[None, :]
    r_mask = is_query[:, None] & (r < num_rope)[None, :]
    q_latent = tl.load(q_latent_ptr + flat[:, None] * num_latent + c[None, :], c_mask, 0.0)
    q_rope = tl.load(q_rope_ptr + flat[:, None] * num_rope + r[None, :], r_mask, 0.0)
    dtype: tl.constexpr = q_latent_ptr.dtype.element_ty
    top = tl.full((tile_size,), -float("inf"), tl.float32)
    total = tl.zeros((tile_size,), tl.float32)
    sums = tl.zeros((tile_size, block_c), tl.float32)
    page_table_ptr += row.to(tl.int64) * table_stride
    for start in range(begin, end, block_s):
        key = start + tl.arange(0, block_s)
        # What lies outside may be NaN: it must not be loaded at all.
        is_key = (key < end) & (key >= first_slot)
        page = tl.load(page_table_ptr + key // page_size, is_key, 0)
        entry_ptr = pages_ptr + (page * page_size + key % page_size) * slot_width
        latent, rope = load_entries(
            entry_ptr, is_key, num_latent, num_rope, fp8, block_c, rope_columns, dtype
        )
        scores = (dot(q_latent, tl.trans(latent)) + dot(q_rope, tl.trans(rope))) * scale
        visible = is_key[None, :] & (key[None, :] <= position[:, None])
        scores = tl.where(visible, scores, -float("inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        base = tl.where(new_top == -float("inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        decay = tl.exp2(top - base)
        total = total * decay + tl.sum(weights, axis=1)
        sums = sums * decay[:, None] + dot(narrow(weights, dtype), latent)
        top = new_top
    o = sums / tl.where(total == 0.0, 1.0, total)[:, None]
    if split:
        o_rows = tl.program_id(0).to(tl.int64) * tile_size + place
        lse = tl.where(total == 0.0, -float("inf"), top + tl.log2(total))
        tl.store(lse_ptr + o_rows, lse)
        tl.store(o_ptr + o_rows[:, None] * num_latent + c[None, :], o, c_mask)
    else:
        o = narrow(o, dtype)
        tl.store(o_ptr + flat[:, None] * num_latent + c[None, :], o, c_mask)


@triton.jit
def combine_kernel(
    parts_ptr,
    lse_ptr,
    tiles_ptr,
    o_ptr,
    num_latent: tl.constexpr,
    tile_size: tl.constexpr,
    block_c: tl.constexpr,
):
    """Program (n, m) merges the parts of query m of tile n."""
    tiles_ptr += tl.program_id(0) * 4
    item, num_items = tl.load(tiles_ptr), tl.load(tiles_ptr + 1)
    first, size = tl.load(tiles_ptr + 2), tl.load(tiles_ptr + 3)
    place = tl.program_id(1)
    if place >= size:
        return
    c = tl.arange(0, block_c)
    mask = c < num_latent
    top = -float("inf")
    for i in range(num_items):
        top = tl.maximum(top, tl.load(lse_ptr + (item + i) * tile_size + place))
    base = tl.where(top == -float("inf"), 0.0, top)
    total = tl.zeros((block_c,), tl.float32)
    sums = tl.zeros((block_c,), tl.float32)
    for i in range(num_items):
        part = ((item + i) * tile_size + place).to(tl.int64)
        share = tl.exp2(tl.load(lse_ptr + part) - base)
        total += share
        sums += share * tl.load(parts_ptr + part * num_latent + c, mask, 0.0)
    o = narrow(sums / tl.where(total == 0.0, 1.0, total), o_ptr.dtype.element_ty)
    tl.store(o_ptr + (first + place).to(tl.int64) * num_latent + c, o, mask)


def attend_decode(
    q_latent_THC: Tensor,
    q_rope_THR: Tensor,
    cache: LatentCacheLayer,
    page_table: Tensor,
    plan: DecodePlan,
    *,
    scale: float,
    first_slot: int,
    o_THC: Tensor,
) -> None:
    """Attention of the plan's rows in the latent space, into their part of `o_THC`."""
    constants = layout_constants(cache.layout)
    del constants["groups"]
    block_c = triton.next_power_of_2(cache.layout.kv_lora_rank)
    num_items, tile_size = len(plan.items), plan.tile_size
    parts, lse = o_THC, q_latent_THC  # without parts, the second is not written
    if plan.is_split:
        shape = (num_items * tile_size, cache.layout.kv_lora_rank)
        parts = torch.empty(shape, dtype=torch.float32, device=o_THC.device)
        lse = torch.empty(shape[0], dtype=torch.float32, device=o_THC.device)
    decode_kernel[(num_items,)](
        q_latent_THC,
        q_rope_THR,
        cache.pages,
        page_table,
        plan.items,
        parts,
        lse,
        page_table.stride(0),
        cache.page_size,
        cache.layout.width,
        first_slot,
        scale * LOG2_E,
        q_latent_THC.shape[1],
        **constants,
        split=plan.is_split,
        tile_size=tile_size,
        block_s=KEYS[q_latent_THC.dtype],
        block_c=block_c,
        num_warps=8,
        num_stages=2,
    )
    if plan.is_split:
        combine_kernel[(len(plan.tiles), tile_size)](
            parts,
            lse,
            plan.tiles,
            o_THC,
            num_latent=cache.layout.kv_lora_rank,
            tile_size=tile_size,
            block_c=block_c,
        )
