"""The two feed-forward blocks: dense SwiGLU, and DeepSeekMoE (DeepSeek-V3, section 2.1.2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from leadline.engine.model.dispatch import TokenDispatcher
from leadline.engine.model.experts import Experts
from leadline.engine.model.linear import make_linear
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.kernels.parameters import DenseWeights, MoEWeights
from leadline.kernels.types import QuantTensor, RouterConfig
from leadline.loader.model_config import ModelConfig


def router_config(config: ModelConfig) -> RouterConfig:
    """The router's settings, from the checkpoint's."""
    grouped = config.topk_method != "greedy"
    return RouterConfig(
        scoring=config.scoring_func,
        num_groups=config.n_group if grouped else 1,
        num_top_groups=config.topk_group if grouped else 1,
        top_k=config.num_experts_per_tok,
        group_score="top2_sum" if config.topk_method == "noaux_tc" else "max",
        renormalize=config.norm_topk_prob,
        scaling_factor=config.routed_scaling_factor,
    )


class DenseMLP:
    """`down(silu(gate(x)) * up(x))`."""

    def __init__(
        self, weights: DenseWeights, kernels: KernelSet, parallel: ParallelContext
    ) -> None:
        self._kernels = kernels
        self._parallel = parallel
        self._gate_up = make_linear(weights.gate_up, kernels)
        self._down = make_linear(weights.down, kernels)

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Returns [T, D]."""
        hidden_TF = self._kernels.swiglu(self._gate_up(x_TD))
        return self._parallel.tp.all_reduce(self._down(hidden_TF))


class MoE:
    """Routed experts plus the shared one.

    Attributes:
        dispatcher: brings tokens to the experts.
        experts: compute them there.
        num_chosen_E: int64, how many tokens each expert here has had since it came here; where
            counts are.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: MoEWeights,
        kernels: KernelSet,
        parallel: ParallelContext,
        dispatcher: TokenDispatcher,
        experts: Experts,
    ) -> None:
        self._weights = weights
        self._kernels = kernels
        self.dispatcher = dispatcher
        self.experts = experts
        self._load_before = [0] * config.n_routed_experts
        self.num_chosen_E = torch.zeros(len(dispatcher.expert_ids), dtype=torch.int64)
        self._router = router_config(config)
        self._shared = None
        if weights.shared_experts is not None:
            self._shared = DenseMLP(weights.shared_experts, kernels, parallel)

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Returns [T, D]."""
        weights, kernels = self._weights, self._kernels
        logits_TE = kernels.router_logits(x_TD, weights.gate)
        bias = weights.e_score_correction_bias
        topk_ids_TK, topk_weights_TK = kernels.route(logits_TE, bias, self._router)
        sent = self.dispatcher.dispatch(x_TD, topk_ids_TK, topk_weights_TK)
        self.num_chosen_E = self.num_chosen_E.to(sent.counts.device).add_(sent.counts)
        pending = self.experts.begin(sent.x_RD, sent.counts)
        shared_TD = None if self._shared is None else self._shared(x_TD)  # meanwhile
        routed_TD = self.dispatcher.combine(pending(), sent.handle)
        return routed_TD if shared_TD is None else routed_TD + shared_TD

    @property
    def num_expert_bytes(self) -> int:
        """Memory of expert weights beside the model's own."""
        return self.experts.num_bytes

    def expert_load(self) -> list[int]:
        """How many tokens each expert of the layer has had here since start."""
        load = list(self._load_before)
        counts = self.num_chosen_E.tolist()
        for expert_id, count in zip(self.dispatcher.expert_ids, counts, strict=True):
            load[expert_id] += count
        return load

    def expert_bytes(self) -> list[Tensor]:
        """The memory of the experts' weights, uint8 [slots, bytes], one for each tensor of them."""
        parts: list[Tensor] = []
        for weight in (self._weights.gate_up_E2FD, self._weights.down_EDF):
            parts += [weight.data, weight.scale] if isinstance(weight, QuantTensor) else [weight]
        return [part.view(torch.uint8).view(len(part), -1) for part in parts]

    def change_experts(self, change: Callable[[], None]) -> None:
        """Other experts have taken slots, of which `change` tells the dispatcher."""
        self._load_before = self.expert_load()
        self.num_chosen_E = torch.zeros_like(self.num_chosen_E)
        change()
