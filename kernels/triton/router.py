"""Choice of experts: scores, groups, top-k, weights in one launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.triton.numerics import sigmoid
from leadline.kernels.types import RouterConfig


@triton.jit
def _first_of_largest(values, index, size: tl.constexpr):
    """Index of the largest of each row of [M, N]; the smaller index wins a tie."""
    largest = tl.max(values, axis=1)
    return tl.min(tl.where(values == largest[:, None], index, size), axis=1)


@triton.jit
def _in_best_groups(
    choice_GW,
    num_groups: tl.constexpr,
    num_top_groups: tl.constexpr,
    top2_sum: tl.constexpr,
    groups: tl.constexpr,
    width: tl.constexpr,
):
    """Whether each group of [groups, width] is among the best, [groups]."""
    group_scores = tl.max(choice_GW, axis=1)
    if top2_sum:
        place = tl.arange(0, width)[None, :]
        best = _first_of_largest(choice_GW, place, width)
        others = tl.where(place == best[:, None], -float("inf"), choice_GW)
        group_scores += tl.max(others, axis=1)
    group = tl.arange(0, groups)
    left = tl.where(group < num_groups, group_scores, -float("inf"))[None, :]
    is_left = (group < num_groups)[None, :]
    chosen = group[None, :] < 0
    for _ in tl.static_range(num_top_groups):
        # A group whose score is -inf is still taken before one that is taken already.
        is_largest = is_left & (left == tl.max(left, axis=1)[:, None])
        best = tl.min(tl.where(is_largest, group[None, :], groups), axis=1)
        is_best = group[None, :] == best[:, None]
        chosen = chosen | is_best
        is_left = is_left & (group[None, :] != best[:, None])
        left = tl.where(is_best, -float("inf"), left)
    return tl.reshape(chosen, (groups,))


@triton.jit
def route_kernel(
    logits_ptr,
    bias_ptr,
    ids_ptr,
    weights_ptr,
    logits_stride,
    scaling_factor,
    num_experts: tl.constexpr,
    has_bias: tl.constexpr,
    use_sigmoid: tl.constexpr,
    num_groups: tl.constexpr,
    num_top_groups: tl.constexpr,
    top2_sum: tl.constexpr,
    top_k: tl.constexpr,
    renormalize: tl.constexpr,
    groups: tl.constexpr,
    width: tl.constexpr,
    choices: tl.constexpr,
):
    """One token a program; its experts as [groups, width], padded."""
    token = tl.program_id(0).to(tl.int64)
    group, place = tl.arange(0, groups)[:, None], tl.arange(0, width)[None, :]
    group_width: tl.constexpr = num_experts // num_groups
    expert = group * group_width + place
    exists = (group < num_groups) & (place < group_width)
    logits = tl.load(logits_ptr + token * logits_stride + expert, exists, -float("inf"))
    if use_sigmoid:
        scores = sigmoid(tl.maximum(logits, -80.0))
    else:
        powers = tl.exp(logits - tl.max(tl.max(logits, axis=1), axis=0))
        scores = tl.div_rn(powers, tl.zeros_like(powers) + tl.sum(tl.sum(powers, axis=1), axis=0))
    choice = scores
    if has_bias:
        choice += tl.load(bias_ptr + expert, exists, 0.0)
    # NaN is the largest of all, as in a sort: a broken token still gets experts that there are.
    choice = tl.where(choice != choice, float("inf"), choice)
    choice = tl.where(exists, choice, -float("inf"))
    if num_groups > 1:
        kept = _in_best_groups(choice, num_groups, num_top_groups, top2_sum, groups, width)
        exists = exists & kept[:, None]
        choice = tl.where(exists, choice, -float("inf"))
    k = tl.arange(0, choices)
    ids = tl.zeros((choices,), tl.int32)
    weights = tl.zeros((choices,), tl.float32)
    for i in tl.static_range(top_k):
        largest = tl.max(tl.max(choice, axis=1), axis=0)
        candidates = tl.where(exists & (choice == largest), expert, num_experts)
        best = tl.min(tl.min(candidates, axis=1), axis=0)
        is_best = exists & (expert == best)
        score = tl.sum(tl.sum(tl.where(is_best, scores, 0.0), axis=1), axis=0)
        ids = tl.where(k == i, best, ids)
        weights = tl.where(k == i, score, weights)
        exists = exists & (expert != best)
        choice = tl.where(is_best, -float("inf"), choice)
    if renormalize:
        weights = tl.div_rn(weights, tl.zeros_like(weights) + (tl.sum(weights, axis=0) + 1e-20))
    is_choice = k < top_k
    tl.store(ids_ptr + token * top_k + k, ids.to(tl.int64), is_choice)
    tl.store(weights_ptr + token * top_k + k, weights * scaling_factor, is_choice)


def route(logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig) -> tuple[Tensor, Tensor]:
    """See `api.Route`."""
    logits = logits_TE if logits_TE.stride(-1) == 1 else logits_TE.contiguous()
    num_tokens, num_experts = logits.shape
    shape, device = (num_tokens, config.top_k), logits.device
    ids = torch.empty(shape, dtype=torch.int64, device=device)
    weights = torch.empty(shape, dtype=torch.float32, device=device)
    if num_tokens:
        group_width = num_experts // config.num_groups
        route_kernel[(num_tokens,)](
            logits,
            logits if bias_E is None else bias_E.float().contiguous(),
            ids,
            weights,
            logits.stride(0),
            float(config.scaling_factor),
            num_experts=num_experts,
            has_bias=bias_E is not None,
            use_sigmoid=config.scoring == "sigmoid",
            num_groups=config.num_groups,
            num_top_groups=config.num_top_groups,
            top2_sum=config.group_score == "top2_sum" and group_width > 1,
            top_k=config.top_k,
            renormalize=config.renormalize,
            groups=triton.next_power_of_2(config.num_groups),
            width=triton.next_power_of_2(group_width),
            choices=triton.next_power_of_2(config.top_k),
            num_warps=1,
        )
    return ids, weights
