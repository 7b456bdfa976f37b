"""Mixture of experts: router, permutation, grouped expert MLP (DeepSeek-V3, section 2.1.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leadline.kernels.api import Linear, LinearFP8, Permutation
from leadline.kernels.reference.linear import linear, linear_fp8
from leadline.kernels.types import QuantTensor, RouterConfig


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), its bits the same in every batch.

    torch.sigmoid rounds the last elements of a tensor, those that fill no vector register, in
    another way than the others; torch.exp does not.
    """
    return 1 / (1 + torch.exp(-x.clamp(min=-80.0)))


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """See `api.Swiglu`."""
    gate, up = (half.float().contiguous() for half in gate_up_T2F.chunk(2, dim=-1))
    return (gate * sigmoid(gate) * up).to(gate_up_T2F.dtype)


def _largest(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest values, largest first; the smaller index wins a tie."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :k]


def _mask_groups(scores_TE: Tensor, config: RouterConfig) -> Tensor:
    """Scores with the experts outside of each token's best groups at -inf."""
    grouped: Tensor = scores_TE.unflatten(-1, (config.num_groups, -1))
    if config.group_score == "top2_sum":
        group_scores = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
    else:
        group_scores = grouped.amax(-1)
    keep = torch.zeros_like(group_scores, dtype=torch.bool)
    keep.scatter_(-1, _largest(group_scores, config.num_top_groups), True)
    return grouped.masked_fill(~keep.unsqueeze(-1), -torch.inf).flatten(-2)


def route(logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig) -> tuple[Tensor, Tensor]:
    """See `api.Route`."""
    scores = sigmoid(logits_TE) if config.scoring == "sigmoid" else logits_TE.softmax(-1)
    choice = scores if bias_E is None else scores + bias_E
    if config.num_groups > 1:
        choice = _mask_groups(choice, config)
    ids = _largest(choice, config.top_k)
    weights = scores.gather(-1, ids)
    if config.renormalize:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return ids, weights * config.scaling_factor


def permute(x_TD: Tensor, ids_TK: Tensor, num_experts: int) -> tuple[Tensor, Permutation]:
    """See `api.Permute`."""
    flat = ids_TK.flatten()
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts).cpu()
    return x_TD.index_select(0, order // ids_TK.shape[1]), Permutation(order, counts)


def unpermute(y_RD: Tensor, permutation: Permutation, weights_TK: Tensor) -> Tensor:
    """See `api.Unpermute`."""
    inverse = torch.empty_like(permutation.order_R)
    inverse[permutation.order_R] = torch.arange(len(inverse), device=inverse.device)
    y_TKD: Tensor = y_RD.index_select(0, inverse).unflatten(0, weights_TK.shape)
    y_TKD = y_TKD.float() * weights_TK.unsqueeze(-1)
    total = y_TKD[:, 0]
    for k in range(1, weights_TK.shape[1]):
        total = total + y_TKD[:, k]
    return total.to(y_RD.dtype)


def _experts(weights: Tensor | QuantTensor) -> Sequence[Tensor | QuantTensor]:
    """The stacked weights one by one."""
    if isinstance(weights, QuantTensor):
        offsets = (weights.row_offset, weights.col_offset)
        pairs = zip(weights.data, weights.scale, strict=True)
        return [QuantTensor(data, scale, *offsets) for data, scale in pairs]
    return weights.unbind()


class GroupedMLP:
    """See `api.GroupedMLP`; one expert after the other, through the given linears."""

    def __init__(self, linear: Linear = linear, linear_fp8: LinearFP8 = linear_fp8) -> None:
        self._linear = linear
        self._linear_fp8 = linear_fp8

    def __call__(
        self,
        x_RD: Tensor,
        counts: Tensor,
        gate_up_E2FD: Tensor | QuantTensor,
        down_EDF: Tensor | QuantTensor,
    ) -> Tensor:
        """See `api.GroupedMLP`."""
        outputs = [x_RD[:0]]
        groups = x_RD.split(counts.tolist())
        experts = zip(groups, _experts(gate_up_E2FD), _experts(down_EDF), strict=True)
        for rows, gate_up_2FD, down_DF in experts:
            if len(rows):
                outputs.append(self._matmul(swiglu(self._matmul(rows, gate_up_2FD)), down_DF))
        return torch.cat(outputs)

    def _matmul(self, x: Tensor, weight: Tensor | QuantTensor) -> Tensor:
        if isinstance(weight, QuantTensor):
            return self._linear_fp8(x, weight)
        return self._linear(x, weight)
