"""What `kv_a_proj` gives, to the cache in one pass: latents normed, keys rotated, both written."""

import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.cache import layout_constants, store_entry
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.numerics import narrow


@triton.jit
def compress_kernel(
    x_ptr,
    weight_ptr,
    cos_ptr,
    sin_ptr,
    slots_ptr,
    pages_ptr,
    x_stride,
    angle_stride,
    slot_width,
    eps,
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
    columns = tl.arange(0, groups)[:, None] * 128 + tl.arange(0, 128)[None, :]
    mask = columns < num_latent
    x_ptr += token * x_stride
    dtype: tl.constexpr = x_ptr.dtype.element_ty
    x = tl.load(x_ptr + columns, mask, 0.0).to(tl.float32)
    mean = tl.sum(tl.sum(x * x, axis=1), axis=0) / num_latent
    weight = tl.load(weight_ptr + columns, mask, 0.0).to(tl.float32)
    latent = narrow(x * tl.rsqrt(mean + eps) * weight, dtype).to(tl.float32)
    column = tl.arange(0, rope_columns)
    is_rope = column < num_rope
    key = tl.load(x_ptr + num_latent + column, is_rope, 0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(key, (rope_columns // 2, 2)))
    pair = tl.arange(0, rope_columns // 2)
    cos = tl.load(cos_ptr + token * angle_stride + pair, pair < num_rope // 2, 0.0)
    sin = tl.load(sin_ptr + token * angle_stride + pair, pair < num_rope // 2, 0.0)
    rotated = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    rope = narrow(tl.reshape(rotated, (rope_columns,)), dtype).to(tl.float32)
    entry_ptr = pages_ptr + slot * slot_width
    store_entry(entry_ptr, latent, rope, num_latent, num_rope, fp8, groups, rope_columns)


def write_compressed(
    cache: LatentCacheLayer,
    kv_TX: Tensor,
    weight_C: Tensor,
    eps: float,
    cos_TR2: Tensor,
    sin_TR2: Tensor,
    slots_T: Tensor,
) -> None:
    """`rms_norm` of the first C values of a row, `apply_rope` of the others, and `write_latent`."""
    rows = rows_of(kv_TX)
    if len(rows) == 0:
        return
    compress_kernel[(len(rows),)](
        rows,
        weight_C.contiguous(),
        cos_TR2.contiguous(),
        sin_TR2.contiguous(),
        slots_T.contiguous(),
        cache.pages,
        rows.stride(0),
        cos_TR2.shape[1],
        cache.layout.width,
        eps,
        **layout_constants(cache.layout),
        num_warps=2,
    )
