"""Absorbed latent attention of one batch shape, whose launches are the same in every step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.triton.mla import attend_absorbed
from leadline.kernels.triton.mla_decode import DecodePlan, plan_decode


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """What a captured decode step has of everything.

    Attributes:
        query_len: new tokens of each row: one and its drafts.
        max_pages: width of the page table.
    """

    num_rows: int
    query_len: int
    num_heads: int
    max_pages: int


class FixedMLA:
    """`attention.MLAAttention` of one shape: a CUDA graph may hold `run`, which asks nobody.

    `plan` deals the pages of this step's rows on the host and copies that into tensors that stay
    where they are, as is the page table; grids are those of the shape. It goes before each replay.
    """

    def __init__(
        self, shape: DecodeShape, *, scale: float, page_size: int, device: torch.device
    ) -> None:
        self._shape = shape
        self._scale = scale
        self._page_size = page_size
        size = shape.num_rows, shape.max_pages
        self._page_table = torch.zeros(size, dtype=torch.int64, device=device)
        nothing = AttentionMeta(
            query_lens=[shape.query_len] * shape.num_rows,
            seq_lens=[0] * shape.num_rows,
            page_table=self._page_table,
            slots_T=self._page_table.new_empty(0),
            positions_T=self._page_table.new_empty(0),
        )
        self._plan = self._make_plan(nothing)

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`; a row of length 0 is padding, and yields zeros.

        Raises:
            ValueError: the batch has another shape.
        """
        shape = self._shape
        if meta.query_lens != [shape.query_len] * shape.num_rows:
            raise ValueError(
                f"this attention takes {shape.num_rows} rows of {shape.query_len} new tokens, "
                f"not {meta.query_lens}"
            )
        width = meta.page_table.shape[1]
        if width > shape.max_pages:
            raise ValueError(f"{width} pages a row are more than {shape.max_pages}")
        plan = self._make_plan(meta)
        self._plan.items.copy_(plan.items, non_blocking=True)
        self._plan.tiles.copy_(plan.tiles, non_blocking=True)
        self._page_table[:, :width].copy_(meta.page_table, non_blocking=True)

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`."""
        return attend_absorbed(
            q_nope_THN,
            q_rope_THR,
            cache,
            projection,
            self._page_table,
            self._plan,
            scale=self._scale,
            first_slot=first_slot,
        )

    def _make_plan(self, meta: AttentionMeta) -> DecodePlan:
        rows = list(range(self._shape.num_rows))
        return plan_decode(meta, rows, self._shape.num_heads, self._page_size, is_fixed=True)
