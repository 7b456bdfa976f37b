"""One transformer layer with pre-norms and a running residual."""

from torch import Tensor

from leadline.engine.model.attention import MLA, StepContext
from leadline.engine.model.dispatch import MakeDispatcher
from leadline.engine.model.experts import MakeExperts
from leadline.engine.model.mlp import DenseMLP, MoE
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.kernels.parameters import LayerWeights, MoEWeights
from leadline.loader.model_config import ModelConfig


class DecoderLayer:
    """Attention, then a dense MLP or MoE.

    The residual stream has the dtype of the embedding; each block's output is added to it when the
    next norm reads it, so that addition and norm are one operation.

    Attributes:
        weights: of the layer.
        self_attn, mlp: its two blocks.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: LayerWeights,
        kernels: KernelSet,
        parallel: ParallelContext,
        make_dispatcher: MakeDispatcher,
        make_experts: MakeExperts,
        *,
        layer: int,
        first_slot: int = 0,
    ) -> None:
        self._kernels = kernels
        self.weights = weights
        self._eps = config.rms_norm_eps
        self.self_attn = MLA(
            config, weights.self_attn, kernels, parallel, layer=layer, first_slot=first_slot
        )
        self.mlp: DenseMLP | MoE
        if isinstance(weights.mlp, MoEWeights):
            dispatcher, experts = make_dispatcher(layer), make_experts(layer, weights.mlp)
            self.mlp = MoE(config, weights.mlp, kernels, parallel, dispatcher, experts)
        else:
            self.mlp = DenseMLP(weights.mlp, kernels, parallel)

    def __call__(
        self, x_TD: Tensor, residual_TD: Tensor | None, step: StepContext
    ) -> tuple[Tensor, Tensor]:
        """Returns (the MLP's output, the residual stream before it), both [T, D]."""
        kernels, weights, eps = self._kernels, self.weights, self._eps
        if residual_TD is None:
            residual_TD = x_TD
            x_TD = kernels.rms_norm(x_TD, weights.input_layernorm, eps)
        else:
            x_TD, residual_TD = kernels.add_rms_norm(
                x_TD, residual_TD, weights.input_layernorm, eps
            )
        x_TD = self.self_attn(x_TD, step)
        x_TD, residual_TD = kernels.add_rms_norm(
            x_TD, residual_TD, weights.post_attention_layernorm, eps
        )
        return self.mlp(x_TD), residual_TD

    def write_latent(self, x_TD: Tensor, step: StepContext) -> None:
        """Only write the tokens' cache entries: input norm and compression, no attention."""
        self.self_attn.write(
            self._kernels.rms_norm(x_TD, self.weights.input_layernorm, self._eps), step
        )
