"""Multi-head latent attention over the paged cache (DeepSeek-V2, section 2.1).

`absorbed` attends in the latent space: the key up-projection goes into the query and the value
up-projection into the output, so that every head shares one key of C + R values. `expanded`
rebuilds keys and values of each head. Both compute the same function.
"""

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.reference.cache import read_latent


def attend(
    q_THX: Tensor, k_SHX: Tensor, v_SHV: Tensor, mask_TS: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Masked attention of one row, float32.

    Args:
        q_THX: queries.
        k_SHX: keys, H being 1 where heads share them.
        v_SHV: values, likewise.
        mask_TS: bool, the keys that a query sees; keys and values that none sees may hold NaN.
        scale: factor on the products.

    Returns:
        (o_THV, lse_TH); a query without keys has o = 0 and lse = -inf.
    """
    seen = mask_TS.any(0)
    k = torch.where(seen[:, None, None], k_SHX, 0.0).expand(-1, q_THX.shape[1], -1)
    v = torch.where(seen[:, None, None], v_SHV, 0.0).expand(-1, q_THX.shape[1], -1)
    scores = torch.einsum("thx,shx->ths", q_THX, k) * scale
    scores = scores.masked_fill(~mask_TS.unsqueeze(1), -torch.inf)
    lse = scores.logsumexp(-1)
    weights = torch.exp(scores - lse.clamp(min=torch.finfo(lse.dtype).min).unsqueeze(-1))
    return torch.einsum("ths,shv->thv", weights, v), lse


def merge_attention(
    o1_THV: Tensor, lse1_TH: Tensor, o2_THV: Tensor, lse2_TH: Tensor
) -> tuple[Tensor, Tensor]:
    """See `api.MergeAttention`."""
    # torch.logaddexp rounds the last elements of a tensor in another way than the others.
    limits = torch.finfo(lse1_TH.dtype)
    top = torch.maximum(lse1_TH, lse2_TH).clamp(min=limits.min)
    share1, share2 = torch.exp(lse1_TH - top), torch.exp(lse2_TH - top)
    total = share1 + share2
    o = share1.unsqueeze(-1) * o1_THV + share2.unsqueeze(-1) * o2_THV
    return o / total.clamp(min=limits.tiny).unsqueeze(-1), top + torch.log(total)


class ReferenceMLA:
    """`api.NewMLAAttention`: row after row, absorbed or expanded by the number of new tokens.

    Rows of at most `max_absorbed` new tokens are absorbed. An expanded row attends the cached
    context in chunks of `context_chunk` tokens, then its new tokens, and merges the results, so
    that expanded keys take bounded memory.
    """

    def __init__(
        self, *, scale: float, page_size: int, max_absorbed: int = 8, context_chunk: int = 4096
    ) -> None:
        self._scale = scale
        self._page_size = page_size
        self._max_absorbed = max_absorbed
        self._chunk_pages = max(1, context_chunk // page_size)
        self._meta: AttentionMeta | None = None

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`."""
        meta = self._meta
        assert meta is not None, "plan() comes before run()"
        outputs = []
        begin = 0
        for row, num_new in enumerate(meta.query_lens):
            end = begin + num_new
            q_nope, q_rope = q_nope_THN[begin:end].float(), q_rope_THR[begin:end].float()
            positions = meta.positions_T[begin:end]
            num_pages = -(-meta.seq_lens[row] // self._page_size)
            page_ids = meta.page_table[row, :num_pages]
            attend_row = self._absorbed if num_new <= self._max_absorbed else self._expanded
            outputs.append(
                attend_row(q_nope, q_rope, cache, page_ids, positions, projection, first_slot)
            )
            begin = end
        width = projection.w_uv_HVC.shape[1]
        empty = q_nope_THN.new_empty(0, q_nope_THN.shape[1], width)
        return torch.cat([empty, *outputs]).to(q_nope_THN.dtype)

    def _absorbed(
        self,
        q_nope: Tensor,
        q_rope: Tensor,
        cache: LatentCacheLayer,
        page_ids: Tensor,
        positions: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        latent_rank = projection.w_uk_HNC.shape[2]
        q_latent = torch.einsum("thn,hnc->thc", q_nope, projection.w_uk_HNC.float())
        keys = read_latent(cache, page_ids).flatten(0, 1).unsqueeze(1)
        mask = _visible(positions, 0, keys.shape[0], first_slot)
        o_latent, _ = attend(
            torch.cat((q_latent, q_rope), -1), keys, keys[..., :latent_rank], mask, self._scale
        )
        return torch.einsum("thc,hvc->thv", o_latent, projection.w_uv_HVC.float())

    def _expanded(
        self,
        q_nope: Tensor,
        q_rope: Tensor,
        cache: LatentCacheLayer,
        page_ids: Tensor,
        positions: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        latent_rank = projection.w_uk_HNC.shape[2]
        q = torch.cat((q_nope, q_rope), -1)
        width = projection.w_uv_HVC.shape[1]
        o, lse = q.new_zeros(*q.shape[:2], width), q.new_full(q.shape[:2], -torch.inf)
        for chunk, pages in enumerate(page_ids.split(self._chunk_pages)):
            keys = read_latent(cache, pages).flatten(0, 1)
            latent, rope = keys[:, :latent_rank], keys[:, latent_rank:]
            k_nope = torch.einsum("sc,hnc->shn", latent, projection.w_uk_HNC.float())
            v = torch.einsum("sc,hvc->shv", latent, projection.w_uv_HVC.float())
            k = torch.cat((k_nope, rope.unsqueeze(1).expand(-1, q.shape[1], -1)), -1)
            start = chunk * self._chunk_pages * self._page_size
            mask = _visible(positions, start, keys.shape[0], first_slot)
            o, lse = merge_attention(o, lse, *attend(q, k, v, mask, self._scale))
        return o


def _visible(positions: Tensor, start: int, num_slots: int, first_slot: int) -> Tensor:
    """Bool [T, S]: slot start + s is in [first_slot, position of query t]."""
    slots = torch.arange(start, start + num_slots, device=positions.device)
    return (slots <= positions.unsqueeze(1)) & (slots >= first_slot)
