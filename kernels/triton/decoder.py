"""A stack of decoder layers whose small parts go together: norms quantise, latents go to the cache.

It has the bits of the operations one by one: what is fused rounds wherever they do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.attention import AttentionMeta, MLAAttention
from leadline.kernels.decoder import DecoderStack, PagedStep
from leadline.kernels.parameters import (
    AttentionWeights,
    DenseWeights,
    LayerWeights,
    MoEWeights,
    Weight,
)
from leadline.kernels.triton.compress import write_compressed
from leadline.kernels.triton.dense import router_logits
from leadline.kernels.triton.experts import can_take_experts
from leadline.kernels.triton.linear import is_whole
from leadline.kernels.triton.norm import Normed, norm_rows
from leadline.kernels.triton.permute import gather_rows, sort_by_expert, unpermute
from leadline.kernels.triton.rope import apply_rope
from leadline.kernels.triton.router import route
from leadline.kernels.triton.swiglu import swiglu, swiglu_fp8
from leadline.kernels.types import QuantTensor

SCALES = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """The products of a stack, and its attention.

    Attributes:
        linear, linear_fp8, grouped_mlp, vocab_logits: as in `api`.
        rows: of quantised rows and a whole weight, see `linear.multiply_rows`.
        expert_rows: likewise of experts, see `experts.multiply_expert_rows`.
        new_attention: see `api.NewMLAAttention`.
    """

    linear: Callable[[Tensor, Tensor], Tensor]
    linear_fp8: Callable[[Tensor, QuantTensor], Tensor]
    grouped_mlp: Callable[[Tensor, Tensor, Weight, Weight], Tensor]
    vocab_logits: Callable[[Tensor, Tensor], Tensor]
    rows: Callable[[Tensor, Tensor, QuantTensor, torch.dtype], Tensor]
    expert_rows: Callable[..., Tensor]
    new_attention: Callable[..., MLAAttention]

    def multiply(self, x_TK: Tensor, weight: Weight) -> Tensor:
        """The product with a weight of either kind."""
        if isinstance(weight, QuantTensor):
            return self.linear_fp8(x_TK, weight)
        return self.linear(x_TK, weight)


def _takes_fp8(weight: Weight | None) -> bool:
    return isinstance(weight, QuantTensor) and is_whole(weight)


class TritonLayers:
    """`decoder.FusedLayers`."""

    def __init__(self, stack: DecoderStack, products: Products) -> None:
        self._stack = stack
        self._products = products
        self._attention: MLAAttention | None = None

    def run(self, x_TD: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """See `FusedLayers.run`."""
        stack = self._stack
        if x_TD.shape[0] == 0:
            return x_TD, x_TD
        if self._attention is None:
            self._attention = self._products.new_attention(
                scale=stack.scale, page_size=step.cache.page_size
            )
        self._attention.plan(step.meta)
        angles = self._angles(step.meta)
        residual: Tensor | None = None
        for i, layer in enumerate(stack.layers):
            normed = self._input_norm(x_TD, residual, layer)
            x_TD = self._attend(i, normed, x_TD.dtype, step, angles)
            normed = self._mlp_norm(x_TD, normed.total, layer)
            residual = normed.total
            x_TD = self._feed(i, normed, x_TD.dtype)
        last = norm_rows(x_TD, residual, stack.norm, stack.eps)
        return last.y, last.total

    def write(self, x_TD: Tensor, step: PagedStep) -> None:
        """Only write the first layer's cache entries: input norm and compression."""
        if x_TD.shape[0]:
            normed = self._input_norm(x_TD, None, self._stack.layers[0])
            self._compress(0, normed, x_TD.dtype, step, self._angles(step.meta))

    def _angles(self, meta: AttentionMeta) -> tuple[Tensor, Tensor]:
        stack = self._stack
        return stack.cos[meta.positions_T], stack.sin[meta.positions_T]

    def _input_norm(self, x_TD: Tensor, residual: Tensor | None, layer: LayerWeights) -> Normed:
        """Quantised where some projection wants that, as it is where another does."""
        weights = layer.self_attn
        first = weights.q_b_proj if weights.q_a_proj is None else weights.q_a_proj
        fp8 = [_takes_fp8(weight) for weight in (first, weights.kv_a_proj_with_mqa)]
        return norm_rows(
            x_TD,
            residual,
            layer.input_layernorm,
            self._stack.eps,
            scale_format=SCALES if any(fp8) else None,
            keep=not all(fp8),
        )

    def _mlp_norm(self, x_TD: Tensor, residual: Tensor, layer: LayerWeights) -> Normed:
        """Both forms for experts: the router multiplies what is not quantised."""
        mlp = layer.mlp
        if isinstance(mlp, MoEWeights):
            shared = mlp.shared_experts
            fp8 = can_take_experts(mlp.gate_up_E2FD, mlp.down_EDF)
            fp8 = fp8 or (shared is not None and _takes_fp8(shared.gate_up))
            keep = True
        else:
            fp8 = _takes_fp8(mlp.gate_up)
            keep = not fp8
        return norm_rows(
            x_TD,
            residual,
            layer.post_attention_layernorm,
            self._stack.eps,
            scale_format=SCALES if fp8 else None,
            keep=keep,
        )

    def _project(self, normed: Normed, weight: Weight, dtype: torch.dtype) -> Tensor:
        """The product of a norm's result, in the form that the weight takes."""
        if not isinstance(weight, QuantTensor):
            return self._products.linear(normed.y, weight)
        if is_whole(weight):
            return self._products.rows(normed.q, normed.scales, weight, dtype)
        return self._products.linear_fp8(normed.y, weight)

    def _compress(
        self,
        i: int,
        normed: Normed,
        dtype: torch.dtype,
        step: PagedStep,
        angles: tuple[Tensor, Tensor],
    ) -> None:
        weights = self._stack.layers[i].self_attn
        write_compressed(
            step.cache.layers[self._stack.first_layer + i],
            self._project(normed, weights.kv_a_proj_with_mqa, dtype),
            weights.kv_a_layernorm,
            self._stack.latent_eps,
            *angles,
            step.meta.slots_T,
        )

    def _query(self, weights: AttentionWeights, normed: Normed, dtype: torch.dtype) -> Tensor:
        if weights.q_a_proj is None:
            return self._project(normed, weights.q_b_proj, dtype)
        assert weights.q_a_layernorm is not None
        fp8 = _takes_fp8(weights.q_b_proj)
        compressed = norm_rows(
            self._project(normed, weights.q_a_proj, dtype),
            None,
            weights.q_a_layernorm,
            self._stack.latent_eps,
            scale_format=SCALES if fp8 else None,
            keep=not fp8,
        )
        return self._project(compressed, weights.q_b_proj, dtype)

    def _attend(
        self,
        i: int,
        normed: Normed,
        dtype: torch.dtype,
        step: PagedStep,
        angles: tuple[Tensor, Tensor],
    ) -> Tensor:
        stack, weights = self._stack, self._stack.layers[i].self_attn
        assert self._attention is not None
        self._compress(i, normed, dtype, step, angles)
        num_nope = weights.kv_b.w_uk_HNC.shape[1]
        width = num_nope + 2 * stack.cos.shape[1]
        q_THX = self._query(weights, normed, dtype).unflatten(-1, (-1, width))
        o_THV = self._attention.run(
            q_THX[..., :num_nope],
            apply_rope(q_THX[..., num_nope:], *angles),
            step.cache.layers[stack.first_layer + i],
            weights.kv_b,
            stack.first_slot,
        )
        return self._products.multiply(o_THV.flatten(1), weights.o_proj)

    def _feed(self, i: int, normed: Normed, dtype: torch.dtype) -> Tensor:
        mlp = self._stack.layers[i].mlp
        if isinstance(mlp, DenseWeights):
            return self._dense(mlp, normed, dtype)
        routed = self._experts(mlp, normed, self._stack.num_chosen[i], dtype)
        if mlp.shared_experts is None:
            return routed
        return routed + self._dense(mlp.shared_experts, normed, dtype)

    def _dense(self, weights: DenseWeights, normed: Normed, dtype: torch.dtype) -> Tensor:
        hidden = self._project(normed, weights.gate_up, dtype)
        down = weights.down
        if isinstance(down, QuantTensor) and is_whole(down):
            return self._products.rows(*swiglu_fp8(hidden, SCALES), down, dtype)
        return self._products.multiply(swiglu(hidden), down)

    def _experts(
        self, weights: MoEWeights, normed: Normed, num_chosen: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """Rows are quantised once a token, not once for each of its experts."""
        logits = router_logits(normed.y, weights.gate)
        ids, shares = route(logits, weights.e_score_correction_bias, self._stack.router)
        permutation = sort_by_expert(ids, len(weights.gate))
        counts, top_k = permutation.counts, ids.shape[1]
        assert num_chosen is not None, "experts are counted"
        num_chosen.add_(counts)
        stacks = weights.gate_up_E2FD, weights.down_EDF
        if can_take_experts(*stacks):
            rows = (
                gather_rows(normed.q.view(torch.uint8), permutation, top_k).view(normed.q.dtype),
                gather_rows(normed.scales, permutation, top_k),
            )
            y_RD = self._products.expert_rows(*rows, counts, *stacks, dtype, SCALES)
        else:
            y_RD = self._products.grouped_mlp(
                gather_rows(normed.y, permutation, top_k), counts, *stacks
            )
        return unpermute(y_RD, permutation, shares)
