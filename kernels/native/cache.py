"""Entries of the paged latent cache, written and read."""

import torch
from torch import Tensor

from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.native.library import FORMATS, FP8_FORMAT, check_rows, library


def write_latent(
    cache: LatentCacheLayer, latent_TC: Tensor, rope_TR: Tensor, slots_T: Tensor
) -> None:
    """See `api.WriteLatent`."""
    check_rows(latent_TC, "latent")
    check_rows(rope_TR, "rope")
    pages, layout = cache.pages, cache.layout
    num_tokens = len(slots_T)
    shapes = (num_tokens, layout.kv_lora_rank), (num_tokens, layout.qk_rope_head_dim)
    if (latent_TC.shape, rope_TR.shape) != shapes or latent_TC.dtype != rope_TR.dtype:
        raise ValueError(
            f"latent is {tuple(latent_TC.shape)} of {latent_TC.dtype}, rope "
            f"{tuple(rope_TR.shape)} of {rope_TR.dtype}; {num_tokens} slots need {shapes}"
        )
    if not pages.is_contiguous():
        raise ValueError(f"pages have strides {pages.stride()}: they have to be contiguous")
    slots_T = slots_T.contiguous()
    failed = library().write_latent(
        latent_TC.data_ptr(),
        FORMATS[latent_TC.dtype],
        num_tokens,
        latent_TC.stride(0),
        layout.kv_lora_rank,
        rope_TR.data_ptr(),
        rope_TR.stride(0),
        layout.qk_rope_head_dim,
        slots_T.data_ptr(),
        pages.shape[0] * pages.shape[1],
        pages.data_ptr(),
        FORMATS.get(pages.dtype, FP8_FORMAT),
        layout.width,
    )
    if failed:
        raise ValueError(f"slot {int(slots_T.max())} is beyond the {len(pages)} pages")


def read_latent(cache: LatentCacheLayer, page_ids: Tensor) -> Tensor:
    """See `api.ReadLatent`."""
    pages, layout = cache.pages, cache.layout
    if not pages.is_contiguous():
        raise ValueError(f"pages have strides {pages.stride()}: they have to be contiguous")
    if page_ids.dtype != torch.int64:
        raise ValueError(f"page ids are {page_ids.dtype}, not int64")
    page_ids = page_ids.contiguous()
    columns = layout.kv_lora_rank + layout.qk_rope_head_dim
    entries = torch.empty(len(page_ids), pages.shape[1], columns)
    failed = library().read_latent(
        pages.data_ptr(),
        FORMATS.get(pages.dtype, FP8_FORMAT),
        pages.shape[0],
        pages.shape[1],
        layout.width,
        layout.kv_lora_rank,
        layout.qk_rope_head_dim,
        page_ids.data_ptr(),
        len(page_ids),
        entries.data_ptr(),
        torch.get_num_threads(),
    )
    if failed:
        raise ValueError(f"pages {page_ids.tolist()} are not all among the {len(pages)} that exist")
    return entries
