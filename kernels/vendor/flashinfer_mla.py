"""FlashInfer's batched MLA over paged latents."""

from typing import Any

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.vendor.mla import LATENT, ROPE, VendorMLA

_WORKSPACE_BYTES = 128 * 2**20


class FlashInferDecode:
    """`mla.LatentDecode` by `BatchMLAPagedAttentionWrapper`, its kernel for Hopper."""

    def __init__(self, *, scale: float, page_size: int) -> None:
        self._scale = scale
        self._page_size = page_size
        self._wrapper: Any = None

    def plan(self, meta: AttentionMeta, num_heads: int) -> None:
        """See `mla.LatentDecode.plan`."""
        from flashinfer.mla import BatchMLAPagedAttentionWrapper, MLAPlanMetadata

        device = meta.page_table.device
        if self._wrapper is None:
            workspace = torch.empty(_WORKSPACE_BYTES, dtype=torch.uint8, device=device)
            self._wrapper = BatchMLAPagedAttentionWrapper(workspace, backend="fa3")
        num_pages = [-(-length // self._page_size) for length in meta.seq_lens]
        width = torch.arange(meta.page_table.shape[1], device=device)
        counts = torch.tensor(num_pages, device=device)
        pages = meta.page_table[width < counts.unsqueeze(1)]
        self._wrapper.plan(
            metadata=MLAPlanMetadata.csr(
                _starts(meta.query_lens),
                _starts(num_pages),
                pages.to(torch.int32),
                torch.tensor(meta.seq_lens, dtype=torch.int32),
            ),
            num_heads=num_heads,
            head_dim_ckv=LATENT,
            head_dim_kpe=ROPE,
            page_size=self._page_size,
            causal=True,
            sm_scale=self._scale,
            q_data_type=torch.bfloat16,
            kv_data_type=torch.bfloat16,
        )

    def run(self, q_THX: Tensor, pages: Tensor) -> Tensor:
        """See `mla.LatentDecode.run`."""
        o_THC: Tensor = self._wrapper.run(query=q_THX, kv_cache=pages)
        return o_THC


def _starts(lengths: list[int]) -> Tensor:
    """0 and the running sums, int32, on the host."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def flashinfer_mla(*, scale: float, page_size: int) -> VendorMLA:
    """`api.NewMLAAttention`."""
    decode = FlashInferDecode(scale=scale, page_size=page_size)
    return VendorMLA(decode, scale=scale, page_size=page_size)
