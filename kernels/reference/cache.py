"""Write and read of the paged latent cache."""

import torch
from torch import Tensor

from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.reference.quant import FP8, dequantize_groups, quantize_fp8


def write_latent(
    cache: LatentCacheLayer, latent_TC: Tensor, rope_TR: Tensor, slots_T: Tensor
) -> None:
    """See `api.WriteLatent`."""
    keep = slots_T >= 0
    if not bool(keep.all()):
        latent_TC, rope_TR, slots_T = latent_TC[keep], rope_TR[keep], slots_T[keep]
    if cache.layout.dtype == "fp8":
        quantized, scales = quantize_fp8(latent_TC)
        rope = rope_TR.to(torch.bfloat16).contiguous()
        parts = [part.contiguous().view(torch.uint8) for part in (quantized, scales, rope)]
        entry = torch.cat(parts, dim=-1)
    else:
        entry = torch.cat((latent_TC, rope_TR), dim=-1).to(cache.pages.dtype)
    cache.pages.view(-1, cache.layout.width)[slots_T] = entry


def read_latent(cache: LatentCacheLayer, page_ids: Tensor) -> Tensor:
    """See `api.ReadLatent`."""
    pages = cache.pages[page_ids]
    if cache.layout.dtype != "fp8":
        return pages.float()
    num_latent = cache.layout.kv_lora_rank
    num_rope_bytes = cache.layout.qk_rope_head_dim * 2
    latent, scales, rope = pages.split(
        [num_latent, pages.shape[-1] - num_latent - num_rope_bytes, num_rope_bytes], dim=-1
    )
    values = dequantize_groups(latent.view(FP8), scales.contiguous().view(torch.float32))
    return torch.cat((values, rope.contiguous().view(torch.bfloat16).float()), dim=-1)
