"""Write and read of the paged latent cache, in its three layouts."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.numerics import narrow, quantize_groups


@triton.jit
def store_entry(
    entry_ptr,
    latent,
    rope,
    num_latent: tl.constexpr,
    num_rope: tl.constexpr,
    fp8: tl.constexpr,
    groups: tl.constexpr,
    rope_columns: tl.constexpr,
):
    """One slot: a latent, float32 [groups, 128], and a rotated key, float32 [rope_columns]."""
    group = tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_latent
    rope_column = tl.arange(0, rope_columns)
    rope_mask = rope_column < num_rope
    if fp8:
        num_groups: tl.constexpr = (num_latent + 127) // 128
        q, scales = quantize_groups(latent, False)
        tl.store(entry_ptr + columns, q.to(tl.uint8, bitcast=True), mask)
        scales_ptr = (entry_ptr + num_latent).to(tl.pointer_type(tl.float32))
        tl.store(scales_ptr + group, scales, group < num_groups)
        halves_ptr = (entry_ptr + num_latent + 4 * num_groups).to(tl.pointer_type(tl.bfloat16))
        tl.store(halves_ptr + rope_column, narrow(rope, tl.bfloat16), rope_mask)
    else:
        dtype: tl.constexpr = entry_ptr.dtype.element_ty
        tl.store(entry_ptr + columns, narrow(latent, dtype), mask)
        tl.store(entry_ptr + num_latent + rope_column, narrow(rope, dtype), rope_mask)


@triton.jit
def write_kernel(
    latent_ptr,
    rope_ptr,
    slots_ptr,
    pages_ptr,
    latent_stride,
    rope_stride,
    slot_width,
    num_latent: tl.constexpr,
    num_rope: tl.constexpr,
    fp8: tl.constexpr,
    groups: tl.constexpr,
    rope_columns: tl.constexpr,
):
    """One token a program; a slot of -1 is skipped."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot < 0:
        return
    group = tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_latent
    latent = tl.load(latent_ptr + token * latent_stride + columns, mask, 0.0).to(tl.float32)
    rope_column = tl.arange(0, rope_columns)
    rope_mask = rope_column < num_rope
    rope = tl.load(rope_ptr + token * rope_stride + rope_column, rope_mask, 0.0).to(tl.float32)
    entry_ptr = pages_ptr + slot * slot_width
    store_entry(entry_ptr, latent, rope, num_latent, num_rope, fp8, groups, rope_columns)


@triton.jit
def read_kernel(
    pages_ptr,
    page_ids_ptr,
    y_ptr,
    slot_width,
    page_size,
    num_latent: tl.constexpr,
    num_rope: tl.constexpr,
    fp8: tl.constexpr,
    groups: tl.constexpr,
    rope_columns: tl.constexpr,
):
    """Program (n, g) reads slot g of page `page_ids[n]`."""
    page = tl.load(page_ids_ptr + tl.program_id(0))
    entry_ptr = pages_ptr + (page * page_size + tl.program_id(1)) * slot_width
    group = tl.arange(0, groups)
    columns = group[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_latent
    rope_column = tl.arange(0, rope_columns)
    rope_mask = rope_column < num_rope
    if fp8:
        num_groups: tl.constexpr = (num_latent + 127) // 128
        values = tl.load(entry_ptr + columns, mask, 0).to(tl.float8e4nv, bitcast=True)
        scales_ptr = (entry_ptr + num_latent).to(tl.pointer_type(tl.float32))
        scales = tl.load(scales_ptr + group, group < num_groups, 0.0)
        latent = values.to(tl.float32) * scales[:, None]
        halves_ptr = (entry_ptr + num_latent + 4 * num_groups).to(tl.pointer_type(tl.bfloat16))
        rope = tl.load(halves_ptr + rope_column, rope_mask, 0.0).to(tl.float32)
    else:
        latent = tl.load(entry_ptr + columns, mask, 0.0).to(tl.float32)
        rope = tl.load(entry_ptr + num_latent + rope_column, rope_mask, 0.0).to(tl.float32)
    row = tl.program_id(0).to(tl.int64) * page_size + tl.program_id(1)
    y_ptr += row * (num_latent + num_rope)
    dtype: tl.constexpr = y_ptr.dtype.element_ty
    tl.store(y_ptr + columns, narrow(latent, dtype), mask)
    tl.store(y_ptr + num_latent + rope_column, narrow(rope, dtype), rope_mask)


def layout_constants(layout: LatentLayout) -> dict[str, int | bool]:
    """Compile-time constants of a layout.

    Raises:
        ValueError: scales of the FP8 layout would not be aligned.
    """
    fp8 = layout.dtype == "fp8"
    if fp8 and (layout.kv_lora_rank % 4 or layout.qk_rope_head_dim % 2):
        raise ValueError(
            f"an FP8 latent cache needs kv_lora_rank, {layout.kv_lora_rank}, to be a multiple of 4 "
            f"and qk_rope_head_dim, {layout.qk_rope_head_dim}, to be even"
        )
    return {
        "num_latent": layout.kv_lora_rank,
        "num_rope": layout.qk_rope_head_dim,
        "fp8": fp8,
        "groups": triton.next_power_of_2(triton.cdiv(layout.kv_lora_rank, 128)),
        "rope_columns": triton.next_power_of_2(layout.qk_rope_head_dim),
    }


def write_latent(
    cache: LatentCacheLayer, latent_TC: Tensor, rope_TR: Tensor, slots_T: Tensor
) -> None:
    """See `api.WriteLatent`."""
    latent, rope = rows_of(latent_TC), rows_of(rope_TR)
    if len(latent) == 0:
        return
    write_kernel[(len(latent),)](
        latent,
        rope,
        slots_T.contiguous(),
        cache.pages,
        latent.stride(0),
        rope.stride(0),
        cache.layout.width,
        **layout_constants(cache.layout),
        num_warps=2,
    )


def read_latent(cache: LatentCacheLayer, page_ids: Tensor) -> Tensor:
    """See `api.ReadLatent`."""
    return read_pages(cache, page_ids, torch.float32)


def read_pages(cache: LatentCacheLayer, page_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """As `read_latent`, in `dtype`."""
    layout = cache.layout
    shape = (len(page_ids), cache.page_size, layout.kv_lora_rank + layout.qk_rope_head_dim)
    y = torch.empty(shape, dtype=dtype, device=cache.pages.device)
    if y.numel():
        read_kernel[(len(page_ids), cache.page_size)](
            cache.pages,
            page_ids.contiguous(),
            y,
            layout.width,
            cache.page_size,
            **layout_constants(layout),
            num_warps=2,
        )
    return y
