"""Multi-head latent attention: rows with few new tokens absorbed, the others expanded."""

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.mla_decode import DecodePlan, attend_decode, plan_decode
from leadline.kernels.triton.mla_prefill import (
    QUERIES,
    PrefillChunk,
    attend_prefill,
    plan_prefill,
)

_DTYPES = (torch.bfloat16, torch.float32)


def attend_absorbed(
    q_nope_THN: Tensor,
    q_rope_THR: Tensor,
    cache: LatentCacheLayer,
    projection: MLAProjection,
    page_table: Tensor,
    plan: DecodePlan,
    *,
    scale: float,
    first_slot: int,
) -> Tensor:
    """Attention of the plan's rows: o_THV in the dtype of the query, zeros for other tokens.

    Absorption and value-up are batched products of cuBLAS.
    """
    dtype = q_nope_THN.dtype
    w_uk, w_uv = projection.w_uk_HNC.to(dtype), projection.w_uv_HVC.to(dtype)
    q_latent = torch.einsum("thn,hnc->thc", q_nope_THN, w_uk).contiguous()
    o_latent = torch.zeros_like(q_latent)
    attend_decode(
        q_latent,
        q_rope_THR.contiguous(),
        cache,
        page_table,
        plan,
        scale=scale,
        first_slot=first_slot,
        o_THC=o_latent,
    )
    return torch.einsum("thc,hvc->thv", o_latent, w_uv)


class TritonMLA:
    """`api.NewMLAAttention`.

    Rows of at most `max_absorbed` new tokens are absorbed, the others expanded, `context_chunk`
    slots at a time: with 128 heads, 1 / 16 MiB each in bfloat16.
    """

    def __init__(
        self, *, scale: float, page_size: int, max_absorbed: int = 8, context_chunk: int = 8192
    ) -> None:
        self._scale = scale
        self._page_size = page_size
        self._max_absorbed = max_absorbed
        self._chunk_pages = max(1, context_chunk // page_size)
        self._meta: AttentionMeta | None = None
        self._decode: DecodePlan | None = None
        self._prefill: list[PrefillChunk] = []
        self._planned: tuple[int, torch.dtype] | None = None

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        self._planned = None

    def _plan(self, meta: AttentionMeta, num_heads: int, dtype: torch.dtype) -> None:
        """Made at the first layer, which knows how many heads there are, for all of a step."""
        if self._planned == (num_heads, dtype):
            return
        rows = [row for row, query_len in enumerate(meta.query_lens) if query_len]
        few = [row for row in rows if meta.query_lens[row] <= self._max_absorbed]
        many = [row for row in rows if meta.query_lens[row] > self._max_absorbed]
        self._decode = plan_decode(meta, few, num_heads, self._page_size) if few else None
        self._prefill = plan_prefill(meta, many, QUERIES[dtype], self._page_size, self._chunk_pages)
        self._planned = (num_heads, dtype)

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`.

        Raises:
            TypeError: the query is neither bfloat16 nor float32.
        """
        meta, dtype = self._meta, q_nope_THN.dtype
        assert meta is not None, "plan() comes before run()"
        if dtype not in _DTYPES:
            raise TypeError(f"queries must be bfloat16 or float32, not {dtype}")
        num_tokens, num_heads, _ = q_nope_THN.shape
        self._plan(meta, num_heads, dtype)
        q_nope, q_rope = q_nope_THN.contiguous(), q_rope_THR.contiguous()
        if self._prefill:
            o_THV = attend_prefill(
                q_nope,
                q_rope,
                cache,
                projection,
                self._prefill,
                scale=self._scale,
                first_slot=first_slot,
            )
        else:
            shape = (num_tokens, num_heads, projection.w_uv_HVC.shape[1])
            o_THV = torch.zeros(shape, dtype=dtype, device=q_nope.device)
        if self._decode is None:
            return o_THV.to(dtype)
        absorbed = attend_absorbed(
            q_nope,
            q_rope,
            cache,
            projection,
            meta.page_table,
            self._decode,
            scale=self._scale,
            first_slot=first_slot,
        )
        return (o_THV + absorbed).to(dtype) if self._prefill else absorbed
