"""Attention whose rows with few new tokens go to another project's kernel, all else to Triton's.

Those kernels know no `first_slot`: the MTP layer, whose slot 0 holds nothing, is Triton's.
"""

from typing import Protocol

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.mla import TritonMLA

LATENT, ROPE = 512, 64  # of the family's large models; these kernels are built for no others
MAX_ABSORBED = 8


class LatentDecode(Protocol):
    """Absorbed attention over bfloat16 pages."""

    def plan(self, meta: AttentionMeta, num_heads: int) -> None:
        """Prepare for one step; every row has new tokens."""
        ...

    def run(self, q_THX: Tensor, pages: Tensor) -> Tensor:
        """Queries [T, H, 576] over [pages, page size, 576], bfloat16; returns o [T, H, 512]."""
        ...


def rows_of_meta(meta: AttentionMeta, rows: list[int]) -> tuple[AttentionMeta, Tensor]:
    """The structure of some rows alone, and the flat indices of their tokens."""
    starts = [0]
    for length in meta.query_lens:
        starts.append(starts[-1] + length)
    device = meta.slots_T.device
    tokens = [token for row in rows for token in range(starts[row], starts[row + 1])]
    tokens_t = torch.tensor(tokens, dtype=torch.int64, device=device)
    chosen = torch.tensor(rows, dtype=torch.int64, device=device)
    part = AttentionMeta(
        query_lens=[meta.query_lens[row] for row in rows],
        seq_lens=[meta.seq_lens[row] for row in rows],
        page_table=meta.page_table[chosen],
        slots_T=meta.slots_T[tokens_t],
        positions_T=meta.positions_T[tokens_t],
    )
    return part, tokens_t


class VendorMLA:
    """`api.NewMLAAttention`, given the kernel for decoding rows."""

    def __init__(self, decode: LatentDecode, *, scale: float, page_size: int) -> None:
        self._decode = decode
        self._whole = TritonMLA(scale=scale, page_size=page_size)
        self._long = TritonMLA(scale=scale, page_size=page_size)
        self._meta: AttentionMeta | None = None
        self._parts: tuple[tuple[AttentionMeta, Tensor], tuple[AttentionMeta, Tensor]] | None = None

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        self._parts = None
        self._whole.plan(meta)

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
        if first_slot or not self._takes(q_nope_THN, cache):
            return self._whole.run(q_nope_THN, q_rope_THR, cache, projection, first_slot)
        (short, short_tokens), (long, long_tokens) = self._plan_parts(q_nope_THN.shape[1])
        width = projection.w_uv_HVC.shape[1]
        o_THV = q_nope_THN.new_zeros(*q_nope_THN.shape[:2], width)
        if short.query_lens:
            q_nope, q_rope = q_nope_THN[short_tokens], q_rope_THR[short_tokens]
            w_uk, w_uv = projection.w_uk_HNC.to(q_nope), projection.w_uv_HVC.to(q_nope)
            q_latent = torch.einsum("thn,hnc->thc", q_nope, w_uk)
            o_latent = self._decode.run(torch.cat((q_latent, q_rope), -1), cache.pages)
            o_THV[short_tokens] = torch.einsum("thc,hvc->thv", o_latent, w_uv)
        if long.query_lens:
            q_nope, q_rope = q_nope_THN[long_tokens], q_rope_THR[long_tokens]
            o_THV[long_tokens] = self._long.run(q_nope, q_rope, cache, projection)
        return o_THV

    @staticmethod
    def _takes(q_THN: Tensor, cache: LatentCacheLayer) -> bool:
        layout = cache.layout
        return (
            q_THN.dtype == torch.bfloat16
            and layout.dtype == "bfloat16"
            and (layout.kv_lora_rank, layout.qk_rope_head_dim) == (LATENT, ROPE)
        )

    def _plan_parts(
        self, num_heads: int
    ) -> tuple[tuple[AttentionMeta, Tensor], tuple[AttentionMeta, Tensor]]:
        """Made at the first layer of a step, for all of it."""
        if self._parts is None:
            meta = self._meta
            assert meta is not None
            rows = [row for row, length in enumerate(meta.query_lens) if length]
            short = [row for row in rows if meta.query_lens[row] <= MAX_ABSORBED]
            long = [row for row in rows if meta.query_lens[row] > MAX_ABSORBED]
            self._parts = rows_of_meta(meta, short), rows_of_meta(meta, long)
            if short:
                self._decode.plan(self._parts[0][0], num_heads)
            if long:
                self._long.plan(self._parts[1][0])
        return self._parts
