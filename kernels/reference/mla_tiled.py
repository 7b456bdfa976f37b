"""Absorbed latent attention whose every query is reduced in one order, whatever the batch.

Each query attends page after page with an online softmax (Milakov and Gimelshein, 2018), in
products of one fixed shape. So its bits depend on its own keys alone: not on its neighbours, nor on
how its prompt was cut in chunks. One path serves all rows.
"""

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.reference.cache import read_latent

_QUERIES = 32  # queries a pass; bounds the gathered pages, and changes no bit of a result


class TiledMLA:
    """`api.NewMLAAttention`, batch-invariant."""

    def __init__(self, *, scale: float, page_size: int) -> None:
        self._scale = scale
        self._page_size = page_size
        self._meta: AttentionMeta | None = None
        self._tables_TP = torch.empty(0, 0, dtype=torch.int64)

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        query_lens = torch.tensor(meta.query_lens, dtype=torch.int64)
        self._tables_TP = meta.page_table.repeat_interleave(query_lens, dim=0)

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
        num_tokens, num_heads = q_nope_THN.shape[:2]
        output = q_nope_THN.new_empty(num_tokens, num_heads, projection.w_uv_HVC.shape[1])
        for begin in range(0, num_tokens, _QUERIES):
            part = slice(begin, begin + _QUERIES)
            q_latent = _per_head(q_nope_THN[part].float(), projection.w_uk_HNC.float())
            query = torch.cat((q_latent, q_rope_THR[part].float()), -1)
            o_latent = self._attend(
                query, cache, self._tables_TP[part], meta.positions_T[part], first_slot
            )
            w_vu_HCV = projection.w_uv_HVC.float().transpose(1, 2)
            output[part] = _per_head(o_latent, w_vu_HCV).to(output.dtype)
        return output

    def _attend(
        self,
        query_THX: Tensor,
        cache: LatentCacheLayer,
        tables_TP: Tensor,
        positions_T: Tensor,
        first_slot: int,
    ) -> Tensor:
        latent_rank = cache.layout.kv_lora_rank
        num_pages = int(positions_T.max()) // self._page_size + 1
        top = query_THX.new_full(query_THX.shape[:2], -torch.inf)
        total = torch.zeros_like(top)
        output = query_THX.new_zeros(*query_THX.shape[:2], latent_rank)
        offsets = torch.arange(self._page_size, device=positions_T.device)
        for page in range(num_pages):
            slots = page * self._page_size + offsets
            visible = (slots <= positions_T.unsqueeze(1)) & (slots >= first_slot)
            keys = read_latent(cache, tables_TP[:, page])
            keys = torch.where(visible.unsqueeze(-1), keys, 0.0)
            scores = torch.bmm(query_THX, keys.transpose(1, 2)) * self._scale
            scores = scores.masked_fill(~visible.unsqueeze(1), -torch.inf)
            new_top = torch.maximum(top, scores.amax(-1))
            base = new_top.clamp(min=torch.finfo(torch.float32).min)
            weights = torch.exp(scores - base.unsqueeze(-1))
            decay = torch.exp(top - base)
            total = total * decay + weights.sum(-1)
            output = output * decay.unsqueeze(-1) + torch.bmm(weights, keys[..., :latent_rank])
            top = new_top
        return output / total.clamp(min=torch.finfo(torch.float32).tiny).unsqueeze(-1)


def _per_head(x_THA: Tensor, w_HAB: Tensor) -> Tensor:
    """x[t, h] @ w[h] for up to `_QUERIES` tokens, in products of one shape: [T, H, B]."""
    padded = torch.nn.functional.pad(x_THA, (0, 0, 0, 0, 0, _QUERIES - x_THA.shape[0]))
    product = torch.bmm(padded.transpose(0, 1), w_HAB)
    return product.transpose(0, 1)[: x_THA.shape[0]].contiguous()
