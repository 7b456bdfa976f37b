"""FP8 products and latent attention whose rows have the same bits in every batch."""

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAProjection
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.reference.linear import linear_fp8_1x128
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.triton.dense import linear
from leadline.kernels.triton.experts import multiply_experts
from leadline.kernels.triton.grouped_linear import can_take
from leadline.kernels.triton.heads import multiply_heads
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.linear import is_whole
from leadline.kernels.triton.linear_small import MAX_TOKENS, linear_small
from leadline.kernels.triton.mla_decode import DecodePlan, attend_decode, plan_decode
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.types import QuantTensor


def linear_fp8(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` fp8 1x128, `scale_format` fp32."""
    if not is_whole(weight_NK):
        return _row_by_row(x_TK, weight_NK)
    x = rows_of(x_TK)
    if x.shape[0] == 0 or weight_NK.shape[0] == 0:
        return x.new_zeros(*x_TK.shape[:-1], weight_NK.shape[0])
    rows = quantize_fp8(x, "fp32")
    y = linear_small(*rows, weight_NK, x.dtype, is_invariant=True)
    return y.view(*x_TK.shape[:-1], -1)


def _row_by_row(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """Of a weight that was cut inside of a block by columns."""
    y = x_TK.new_empty(*x_TK.shape[:-1], weight_NK.shape[0])
    for x_1K, y_1N in zip(x_TK.split(1), y.split(1), strict=True):
        y_1N.copy_(linear_fp8_1x128(x_1K, weight_NK))
    return y


_ONE_BY_ONE = GroupedMLP(linear, linear_fp8)


def grouped_mlp(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
) -> Tensor:
    """See `api.GroupedMLP`; formats as of `linear_fp8`.

    Experts that are not in FP8, or that a tensor descriptor cannot take, come one after the other.
    """
    if (
        not isinstance(gate_up_E2FD, QuantTensor)
        or not isinstance(down_EDF, QuantTensor)
        or not can_take(gate_up_E2FD)
        or not can_take(down_EDF)
    ):
        return _ONE_BY_ONE(x_RD, counts, gate_up_E2FD, down_EDF)
    return multiply_experts(x_RD, counts, gate_up_E2FD, down_EDF, "fp32", MAX_TOKENS)


class InvariantMLA:
    """`api.NewMLAAttention`; every row is absorbed, its keys reduced in parts of one size.

    A key that a query does not see adds an exact zero, so neither the end of a chunk nor the rows
    beside it show in a query's bits.
    """

    def __init__(self, *, scale: float, page_size: int) -> None:
        self._scale = scale
        self._page_size = page_size
        self._meta: AttentionMeta | None = None
        self._plan: DecodePlan | None = None
        self._num_heads = 0

    def plan(self, meta: AttentionMeta) -> None:
        """See `attention.MLAAttention.plan`."""
        self._meta = meta
        self._num_heads = 0

    def run(
        self,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        cache: LatentCacheLayer,
        projection: MLAProjection,
        first_slot: int = 0,
    ) -> Tensor:
        """See `attention.MLAAttention.run`; queries in bfloat16 or float32."""
        meta, dtype = self._meta, q_nope_THN.dtype
        assert meta is not None, "plan() comes before run()"
        num_heads = q_nope_THN.shape[1]
        if self._num_heads != num_heads:
            self._plan = self._make_plan(meta, num_heads)
            self._num_heads = num_heads
        q_latent = multiply_heads(q_nope_THN, projection.w_uk_HNC.to(dtype))
        o_latent = torch.zeros_like(q_latent)
        if self._plan is not None:
            attend_decode(
                q_latent,
                q_rope_THR.contiguous(),
                cache,
                meta.page_table,
                self._plan,
                scale=self._scale,
                first_slot=first_slot,
                o_THC=o_latent,
            )
        return multiply_heads(o_latent, projection.w_uv_HVC.to(dtype).mT)

    def _make_plan(self, meta: AttentionMeta, num_heads: int) -> DecodePlan | None:
        rows = [row for row, query_len in enumerate(meta.query_lens) if query_len]
        if not rows:
            return None
        return plan_decode(meta, rows, num_heads, self._page_size, is_invariant=True)
