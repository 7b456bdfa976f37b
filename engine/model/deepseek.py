"""The DeepSeek-V2/V3 decoder over a flat batch of tokens (DeepSeek-V3, section 2)."""

from torch import Tensor

from leadline.engine.model.attention import AttentionMemory, StepContext
from leadline.engine.model.dispatch import MakeDispatcher, local_dispatchers
from leadline.engine.model.embedding import make_embed
from leadline.engine.model.experts import MakeExperts, local_experts
from leadline.engine.model.fused import fuse_layers
from leadline.engine.model.layer import DecoderLayer
from leadline.engine.model.mlp import MoE
from leadline.engine.model.mtp import MTPLayer
from leadline.engine.model.rope import RopeTable
from leadline.engine.model.weights import ModelWeights, storage_bytes
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.survey import ExpertLoad
from leadline.kernels.api import KernelSet
from leadline.loader.model_config import ModelConfig


class DeepseekModel:
    """Embedding, layers, final norm, vocabulary head, and the MTP layer where there is one.

    Attributes:
        mtp: the multi-token prediction layer, or None.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        kernels: KernelSet,
        parallel: ParallelContext,
        *,
        max_len: int,
        make_dispatcher: MakeDispatcher | None = None,
        make_experts: MakeExperts | None = None,
    ) -> None:
        """Layers over weights.

        Args:
            config: of the checkpoint.
            weights: this rank's.
            kernels: what it computes with.
            parallel: the rank's groups.
            max_len: positions that there can be.
            make_dispatcher: how a layer's tokens travel to their experts; None: all are here.
            make_experts: what computes a layer's experts; None: the kernels, where their rows are.
        """
        make_dispatcher = make_dispatcher or local_dispatchers(kernels, config.n_routed_experts)
        make_experts = make_experts or local_experts(kernels)
        self._config = config
        self._weights = weights
        self._kernels = kernels
        self._parallel = parallel
        self._rope = RopeTable(config, max_len)
        self._embed = make_embed(weights.embed_tokens, parallel.tp)
        self._layers = [
            DecoderLayer(config, layer, kernels, parallel, make_dispatcher, make_experts, layer=i)
            for i, layer in enumerate(weights.layers)
        ]
        self._fused = fuse_layers(config, self._layers, weights.norm, kernels, parallel, self._rope)
        self.mtp = None
        if weights.mtp is not None:
            self.mtp = MTPLayer(
                config, weights.mtp, kernels, parallel, make_dispatcher, make_experts, self._rope
            )

    @property
    def num_bytes(self) -> int:
        """Memory that the weights take."""
        copies = sum(moe.num_expert_bytes for moe in self.moe_layers().values())
        return storage_bytes(self._weights) + copies

    def step_context(self, positions_T: Tensor, memory: AttentionMemory) -> StepContext:
        """What the layers of one step share; `positions_T` int64, below `max_len`."""
        return StepContext(positions_T, self._rope, memory)

    def forward(self, token_ids_T: Tensor, step: StepContext) -> Tensor:
        """Hidden states after the final norm, [T, D]."""
        x_TD = self._embed(token_ids_T)
        if self._fused is not None and step.memory.paged is not None:
            return self._fused.run(x_TD, step.memory.paged)[0]
        residual_TD: Tensor | None = None
        for layer in self._layers:
            x_TD, residual_TD = layer(x_TD, residual_TD, step)
        assert residual_TD is not None
        eps = self._config.rms_norm_eps
        return self._kernels.add_rms_norm(x_TD, residual_TD, self._weights.norm, eps)[0]

    def expert_load(self) -> list[ExpertLoad]:
        """How often each expert here was chosen since start; may be read while a step runs."""
        return [
            ExpertLoad(number, number == len(self._layers), moe.expert_load())
            for number, moe in self.moe_layers().items()
        ]

    def moe_layers(self) -> dict[int, MoE]:
        """Layers with routed experts by their number; the MTP layer's is the last."""
        layers = [*self._layers, *([] if self.mtp is None else [self.mtp.layer])]
        return {
            number: layer.mlp for number, layer in enumerate(layers) if isinstance(layer.mlp, MoE)
        }

    def compute_logits(self, hidden_TD: Tensor) -> Tensor:
        """Vocabulary logits, float32 [T, vocab_size]."""
        logits = self._kernels.vocab_logits(hidden_TD, self._weights.lm_head)
        return self._parallel.tp.all_gather(logits, dim=-1)
