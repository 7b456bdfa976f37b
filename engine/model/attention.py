"""Multi-head latent attention of one layer (DeepSeek-V3, section 2.1.1).

T tokens, D hidden, H local heads, Q q-lora, C kv-lora, R rope, N nope, V value head.
"""

from functools import cached_property
from typing import Protocol

from torch import Tensor

from leadline.engine.model.linear import make_linear
from leadline.engine.model.rope import RopeTable
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.kernels.attention import MLAProjection
from leadline.kernels.decoder import PagedStep
from leadline.kernels.parameters import AttentionWeights
from leadline.loader.model_config import ModelConfig

LATENT_NORM_EPS = 1e-6  # of q_a_layernorm and kv_a_layernorm, whatever rms_norm_eps says


class AttentionMemory(Protocol):
    """Where new latents go and past ones come from, for one step.

    Serving keeps them in pages; training attends the batch itself and differentiates through it.
    """

    @property
    def paged(self) -> PagedStep | None:
        """The step's place in the pages, for kernels that run whole layers; None without pages."""
        ...

    def write(self, layer: int, latent_TC: Tensor, rope_TR: Tensor) -> None:
        """Keep the new tokens' latents and rotated keys of a layer."""
        ...

    def attend(
        self,
        layer: int,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        """Causal attention over what the layer holds, new tokens included: o_THV."""
        ...


class StepContext:
    """What every layer of a step shares.

    Attributes:
        memory: of the step.
    """

    def __init__(self, positions_T: Tensor, rope: RopeTable, memory: AttentionMemory) -> None:
        self.memory = memory
        self._positions_T = positions_T
        self._rope = rope

    @cached_property
    def angles(self) -> tuple[Tensor, Tensor]:
        """(cos, sin) of the tokens' positions, float32 [T, R / 2]; looked up if they are used."""
        return self._rope.lookup(self._positions_T)


class MLA:
    """Projections around the attention kernel; `first_slot` is 1 for the MTP layer."""

    def __init__(
        self,
        config: ModelConfig,
        weights: AttentionWeights,
        kernels: KernelSet,
        parallel: ParallelContext,
        *,
        layer: int,
        first_slot: int = 0,
    ) -> None:
        self._config = config
        self._weights = weights
        self._kernels = kernels
        self._parallel = parallel
        self._layer = layer
        self._first_slot = first_slot
        self._q_a_proj = None
        if weights.q_a_proj is not None:
            self._q_a_proj = make_linear(weights.q_a_proj, kernels)
        self._q_b_proj = make_linear(weights.q_b_proj, kernels)
        self._kv_a_proj = make_linear(weights.kv_a_proj_with_mqa, kernels)
        self._o_proj = make_linear(weights.o_proj, kernels)

    def __call__(self, x_TD: Tensor, step: StepContext) -> Tensor:
        """Returns the attention's output [T, D], not yet added to the residual stream."""
        self.write(x_TD, step)
        q_nope, q_rope = self._query(x_TD, step)
        projection = self._weights.kv_b
        o_THV = step.memory.attend(self._layer, q_nope, q_rope, projection, self._first_slot)
        return self._parallel.tp.all_reduce(self._o_proj(o_THV.flatten(1)))

    def write(self, x_TD: Tensor, step: StepContext) -> None:
        """Compress the tokens and keep their latents, without attending."""
        config = self._config
        latent_TC, k_rope_TR = self._kv_a_proj(x_TD).split(
            [config.kv_lora_rank, config.qk_rope_head_dim], dim=-1
        )
        latent_TC = self._kernels.rms_norm(
            latent_TC.contiguous(), self._weights.kv_a_layernorm, LATENT_NORM_EPS
        )
        k_rope_T1R = self._kernels.apply_rope(k_rope_TR.unsqueeze(1), *step.angles)
        step.memory.write(self._layer, latent_TC, k_rope_T1R.squeeze(1))

    def _query(self, x_TD: Tensor, step: StepContext) -> tuple[Tensor, Tensor]:
        config = self._config
        if self._q_a_proj is not None:
            assert self._weights.q_a_layernorm is not None
            x_TD = self._kernels.rms_norm(
                self._q_a_proj(x_TD), self._weights.q_a_layernorm, LATENT_NORM_EPS
            )
        q_THX = self._q_b_proj(x_TD).unflatten(-1, (-1, config.qk_head_dim))
        q_nope, q_rope = q_THX.split([config.qk_nope_head_dim, config.qk_rope_head_dim], dim=-1)
        return q_nope, self._kernels.apply_rope(q_rope, *step.angles)
