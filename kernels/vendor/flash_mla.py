"""FlashMLA's dense decoding over pages of 64 tokens."""

from typing import Any

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.vendor.mla import LATENT, VendorMLA

PAGE_SIZE = 64


class FlashMLADecode:
    """`mla.LatentDecode` by `flash_mla_with_kvcache`, which takes rows of one length.

    A shorter row gets queries that nobody reads before its own: the last query of a row is the one
    that sees all keys.
    """

    def __init__(self, *, scale: float) -> None:
        self._scale = scale
        self._schedule: Any = None
        self._shape = (0, 0)
        self._place_T: Tensor | None = None
        self._page_table: Tensor | None = None
        self._seq_lens: Tensor | None = None

    def plan(self, meta: AttentionMeta, num_heads: int) -> None:
        """See `mla.LatentDecode.plan`."""
        from flash_mla import get_mla_metadata

        device = meta.page_table.device
        longest = max(meta.query_lens)
        self._shape = (len(meta.query_lens), longest)
        place = [
            (row + 1) * longest - length + index
            for row, length in enumerate(meta.query_lens)
            for index in range(length)
        ]
        self._place_T = torch.tensor(place, dtype=torch.int64, device=device)
        self._page_table = meta.page_table.to(torch.int32)
        self._seq_lens = torch.tensor(meta.seq_lens, dtype=torch.int32, device=device)
        self._schedule, _ = get_mla_metadata()

    def run(self, q_THX: Tensor, pages: Tensor) -> Tensor:
        """See `mla.LatentDecode.run`."""
        from flash_mla import flash_mla_with_kvcache

        num_rows, longest = self._shape
        q = q_THX.new_zeros(num_rows * longest, *q_THX.shape[1:])
        q[self._place_T] = q_THX
        o, _ = flash_mla_with_kvcache(
            q.unflatten(0, (num_rows, longest)),
            pages.unsqueeze(2),
            self._page_table,
            self._seq_lens,
            LATENT,
            self._schedule,
            softmax_scale=self._scale,
            causal=True,
            is_fp8_kvcache=False,
            use_legacy=True,  # the dense kernels of this package
        )
        o_THC: Tensor = o.flatten(0, 1)[self._place_T]
        return o_THC


def flash_mla(*, scale: float, page_size: int) -> VendorMLA:
    """`api.NewMLAAttention`.

    Raises:
        ValueError: pages of another size than 64.
    """
    if page_size != PAGE_SIZE:
        raise ValueError(
            f"page_size is {page_size}; FlashMLA reads pages of {PAGE_SIZE}: leave --page-size, or "
            "take another implementation of mla_attention"
        )
    return VendorMLA(FlashMLADecode(scale=scale), scale=scale, page_size=page_size)
