"""Paged attention over compressed latents: its metadata and the stateful seam."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.latent_cache import LatentCacheLayer


@dataclass(slots=True)
class AttentionMeta:
    """The ragged structure of a flat batch; host lists beside tensors, both made once a step.

    Attributes:
        query_lens: new tokens of each row, in batch order; their sum is T.
        seq_lens: tokens of each row including the new ones; the new ones are the last.
        page_table: int64 [B, max_pages], padded with 0.
        slots_T: int64, cache slot of each new token, -1 for padding.
        positions_T: int64, position of each new token in its request.
    """

    query_lens: list[int]
    seq_lens: list[int]
    page_table: Tensor
    slots_T: Tensor
    positions_T: Tensor


@dataclass(slots=True)
class MLAProjection:
    """`kv_b_proj` of one layer, cut in its key and value halves (V2 paper, section 2.1.2).

    Attributes:
        w_uk_HNC: up-projection of keys.
        w_uv_HVC: up-projection of values.
    """

    w_uk_HNC: Tensor
    w_uv_HVC: Tensor


class MLAAttention(Protocol):
    """Causal attention of the new tokens over what the cache holds, themselves included.

    Keys are the slots [first_slot, position]; a query without keys yields zeros. Slots outside may
    hold any bits, NaN included.
    """

    def plan(self, meta: AttentionMeta) -> None:
        """Prepare for one step; every following `run` uses this metadata."""
        ...

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """Returns o_THV in the dtype of the query."""
        ...
