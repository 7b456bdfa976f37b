"""The multi-token prediction layer (DeepSeek-V3, section 2.2)."""

import torch
from torch import Tensor

from leadline.engine.model.attention import StepContext
from leadline.engine.model.dispatch import MakeDispatcher
from leadline.engine.model.embedding import make_embed
from leadline.engine.model.experts import MakeExperts
from leadline.engine.model.fused import fuse_mtp
from leadline.engine.model.layer import DecoderLayer
from leadline.engine.model.linear import make_linear
from leadline.engine.model.rope import RopeTable
from leadline.engine.model.weights import MTPWeights
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.loader.model_config import ModelConfig

FIRST_SLOT = 1  # slot i holds the pair (hidden of token i - 1, token i): slot 0 stays empty


class MTPLayer:
    """Predicts token i + 1 from the hidden state of token i - 1 and the embedding of token i.

    Attributes:
        layer: its transformer layer.
        fused: all of it as one operation, for kernels that have it.
    """

    def __init__(
        self,
        config: ModelConfig,
        weights: MTPWeights,
        kernels: KernelSet,
        parallel: ParallelContext,
        make_dispatcher: MakeDispatcher,
        make_experts: MakeExperts,
        rope: RopeTable,
    ) -> None:
        self._weights = weights
        self._kernels = kernels
        self._parallel = parallel
        self._eps = config.rms_norm_eps
        self._embed = make_embed(weights.embed_tokens, parallel.tp)
        self._eh_proj = make_linear(weights.eh_proj, kernels)
        self.layer = DecoderLayer(
            config,
            weights.layer,
            kernels,
            parallel,
            make_dispatcher,
            make_experts,
            layer=config.num_hidden_layers,
            first_slot=FIRST_SLOT,
        )
        self.fused = fuse_mtp(
            config, self.layer, weights, kernels, parallel, rope, first_slot=FIRST_SLOT
        )

    def forward(
        self, hidden_TD: Tensor, token_ids_T: Tensor, step: StepContext
    ) -> tuple[Tensor, Tensor]:
        """Hidden states after `shared_head.norm` and before it, both [T, D].

        Args:
            hidden_TD: hidden states of the tokens before: after the main model's final norm, or, in
                a chain of drafts, one of the two that this method returned for them.
            token_ids_T: int64.
            step: what the layers share; its positions are those of these tokens.
        """
        if self.fused is not None and step.memory.paged is not None:
            return self.fused.run(hidden_TD, token_ids_T, step.memory.paged)
        x_TD = self._combine(hidden_TD, token_ids_T)
        x_TD, residual_TD = self.layer(x_TD, None, step)
        return self._kernels.add_rms_norm(x_TD, residual_TD, self._weights.norm, self._eps)

    def write_latent(self, hidden_TD: Tensor, token_ids_T: Tensor, step: StepContext) -> None:
        """Only write the cache entries of these pairs; arguments as in `forward`."""
        if self.fused is not None and step.memory.paged is not None:
            self.fused.write(hidden_TD, token_ids_T, step.memory.paged)
        else:
            self.layer.write_latent(self._combine(hidden_TD, token_ids_T), step)

    def compute_logits(self, hidden_TD: Tensor) -> Tensor:
        """Vocabulary logits, float32 [T, vocab_size], of hidden states after the norm."""
        logits = self._kernels.vocab_logits(hidden_TD, self._weights.head)
        return self._parallel.tp.all_gather(logits, dim=-1)

    def _combine(self, hidden_TD: Tensor, token_ids_T: Tensor) -> Tensor:
        """eh_proj of the normed embedding beside the normed hidden state."""
        e = self._kernels.rms_norm(self._embed(token_ids_T), self._weights.enorm, self._eps)
        h = self._kernels.rms_norm(hidden_TD, self._weights.hnorm, self._eps)
        return self._eh_proj(torch.cat((e, h), dim=-1))
