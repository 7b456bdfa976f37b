"""Absorbed latent attention over the paged cache, each query reduced page after page."""

import struct

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.native.library import (
    FORMATS,
    FP8_FORMAT,
    check_columns,
    check_rows,
    library,
)

_pack = struct.Struct("=Qqq Qqq q Qqqq Qq QQ qq Qqqq Qqqq qqqqq q d Q").pack


class NativeMLA:
    """`api.NewMLAAttention`, batch-invariant: how it is shared by threads changes no bit."""

    def __init__(self, *, scale: float, page_size: int) -> None:
        self._scale = scale
        self._page_size = page_size
        self._meta: AttentionMeta | None = None

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        self._query_lens = torch.tensor(meta.query_lens, dtype=torch.int64)
        self._seq_lens = torch.tensor(meta.seq_lens, dtype=torch.int64)
        self._page_table = meta.page_table.contiguous()
        width = self._page_table.shape[1] if self._page_table.ndim == 2 else 0
        needed = -(-max(meta.seq_lens, default=0) // self._page_size)
        if needed > width:
            raise ValueError(f"{needed} pages of {self._page_size} tokens in a table of {width}")

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`."""
        assert self._meta is not None, "plan() comes before run()"
        w_uk, w_uv, pages, layout = (
            projection.w_uk_HNC,
            projection.w_uv_HVC,
            cache.pages,
            cache.layout,
        )
        self._check(q_nope_THN, q_rope_THR, cache, projection)
        num_tokens, num_heads, nope = q_nope_THN.shape
        o_THV = torch.empty(num_tokens, num_heads, w_uv.shape[1], dtype=q_nope_THN.dtype)
        packed = _pack(
            *(q_nope_THN.data_ptr(), q_nope_THN.stride(0), q_nope_THN.stride(1)),
            *(q_rope_THR.data_ptr(), q_rope_THR.stride(0), q_rope_THR.stride(1)),
            FORMATS[q_nope_THN.dtype],
            *(pages.data_ptr(), FORMATS.get(pages.dtype, FP8_FORMAT)),
            *(self._page_size, layout.width),
            *(self._page_table.data_ptr(), self._page_table.stride(0)),
            *(self._query_lens.data_ptr(), self._seq_lens.data_ptr()),
            *(len(self._query_lens), num_tokens),
            *(w_uk.data_ptr(), FORMATS[w_uk.dtype], w_uk.stride(0), w_uk.stride(1)),
            *(w_uv.data_ptr(), FORMATS[w_uv.dtype], w_uv.stride(0), w_uv.stride(1)),
            *(num_heads, nope, layout.qk_rope_head_dim, layout.kv_lora_rank, w_uv.shape[1]),
            first_slot,
            self._scale,
            o_THV.data_ptr(),
        )
        library().mla(packed, torch.get_num_threads())
        return o_THV

    def _check(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
    ) -> None:
        assert self._meta is not None
        check_rows(q_nope_THN, "q_nope")
        check_rows(q_rope_THR, "q_rope")
        num_tokens, num_heads, nope = q_nope_THN.shape
        rank, rope = cache.layout.kv_lora_rank, cache.layout.qk_rope_head_dim
        if num_tokens != sum(self._meta.query_lens):
            raise ValueError(f"{num_tokens} queries; planned were {self._meta.query_lens}")
        if q_rope_THR.shape != (num_tokens, num_heads, rope) or q_rope_THR.dtype != (
            q_nope_THN.dtype
        ):
            raise ValueError(
                f"q_rope is {tuple(q_rope_THR.shape)} of {q_rope_THR.dtype} beside q_nope "
                f"{tuple(q_nope_THN.shape)} of {q_nope_THN.dtype}, with {rope} rotated values"
            )
        for name, weight in (("w_uk", projection.w_uk_HNC), ("w_uv", projection.w_uv_HVC)):
            if weight.shape[0] != num_heads or weight.shape[2] != rank:
                raise ValueError(f"{name} is {tuple(weight.shape)} for {num_heads} heads of {rank}")
            if weight.dtype not in FORMATS:
                raise ValueError(f"{name} is {weight.dtype}, not float32 or bfloat16")
            check_columns(weight, name)
        if projection.w_uk_HNC.shape[1] != nope:
            raise ValueError(f"w_uk is {tuple(projection.w_uk_HNC.shape)} for queries of {nope}")
        if not cache.pages.is_contiguous() or cache.page_size != self._page_size:
            raise ValueError(
                f"pages are {tuple(cache.pages.shape)} with strides {cache.pages.stride()}: they "
                f"have to be contiguous and of {self._page_size} tokens"
            )
