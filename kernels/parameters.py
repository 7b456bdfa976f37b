"""The parameters of one decoder layer, under their names in the checkpoint."""

from dataclasses import dataclass

from torch import Tensor

from leadline.kernels.attention import MLAProjection
from leadline.kernels.types import QuantTensor

Weight = Tensor | QuantTensor


@dataclass(slots=True)
class AttentionWeights:
    """MLA of one layer; `q_a_proj` and its norm are absent without query compression."""

    q_a_proj: Weight | None
    q_a_layernorm: Tensor | None
    q_b_proj: Weight
    kv_a_proj_with_mqa: Weight
    kv_a_layernorm: Tensor
    kv_b: MLAProjection
    o_proj: Weight


@dataclass(slots=True)
class DenseWeights:
    """SwiGLU MLP: `gate_up` [2F, D] with the gate first, `down` [D, F]."""

    gate_up: Weight
    down: Weight


@dataclass(slots=True)
class MoEWeights:
    """Router [E, D] and correction bias [E], stacked experts, and the shared expert."""

    gate: Tensor
    e_score_correction_bias: Tensor | None
    gate_up_E2FD: Weight
    down_EDF: Weight
    shared_experts: DenseWeights | None


@dataclass(slots=True)
class LayerWeights:
    """One transformer layer."""

    input_layernorm: Tensor
    self_attn: AttentionWeights
    post_attention_layernorm: Tensor
    mlp: DenseWeights | MoEWeights
