"""`route` by FlashInfer's fused kernel for DeepSeek-V3's router."""

import torch
from torch import Tensor

from leadline.kernels.triton.router import route as triton_route
from leadline.kernels.types import RouterConfig

_MAX_TOP_K = 8
_MAX_GROUP = 32  # experts of one group
_MAX_CHOSEN = 128  # experts of the groups that are chosen
_MAX_UNGROUPED = 384


def takes(logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig) -> bool:
    """Whether the kernel computes this router: sigmoid with a bias, and its limits on sizes."""
    num_experts = logits_TE.shape[-1]
    if config.num_groups == 1:
        fits = num_experts <= _MAX_UNGROUPED
    else:
        group = num_experts // config.num_groups
        fits = group <= _MAX_GROUP and group * config.num_top_groups <= _MAX_CHOSEN
    return (
        fits
        and bias_E is not None
        and logits_TE.shape[0] > 0
        and config.scoring == "sigmoid"
        and config.renormalize
        and (config.group_score == "top2_sum" or config.num_groups == 1)
        and config.top_k <= _MAX_TOP_K
    )


def route_flashinfer(
    logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig
) -> tuple[Tensor, Tensor]:
    """See `api.Route`; what the kernel cannot take goes to Triton's."""
    from flashinfer.fused_moe import fused_topk_deepseek

    if not takes(logits_TE, bias_E, config):
        return triton_route(logits_TE, bias_E, config)
    assert bias_E is not None
    shape = (logits_TE.shape[0], config.top_k)
    weights = torch.empty(shape, dtype=torch.float32, device=logits_TE.device)
    ids = torch.empty(shape, dtype=torch.int32, device=logits_TE.device)
    fused_topk_deepseek(
        logits_TE.contiguous(),
        bias_E.float().contiguous(),
        config.num_groups,
        config.num_top_groups,
        config.top_k,
        config.scaling_factor,
        weights,
        ids,
    )
    return ids.to(torch.int64), weights
