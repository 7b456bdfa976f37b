"""Bytes of a model's weights on one rank, part by part, as `engine.model.weights` holds them."""

from dataclasses import dataclass

from leadline.engine.planning.layout import Layout
from leadline.loader.model_config import FP8_BLOCK, ModelConfig

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FLOAT32 = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """How weights are held.

    Attributes:
        dtype: of the matrices that are not FP8; vectors and the router are float32.
        keeps_fp8: FP8 matrices stay so, with a float32 scale for each 128x128 block; else they
            become `dtype`.
        keeps_expert_fp8: the same for the routed experts; None for `keeps_fp8`.
    """

    dtype: str = "bfloat16"
    keeps_fp8: bool = True
    keeps_expert_fp8: bool | None = None


class WeightBytes:
    """Sizes of a model's parts on the rank that holds most."""

    def __init__(self, model: ModelConfig, layout: Layout, held: WeightFormat) -> None:
        self._model = model
        self._layout = layout
        self._held = held
        self._item = DTYPE_BYTES[held.dtype]
        keeps_expert = held.keeps_expert_fp8
        self._is_fp8 = held.keeps_fp8 and model.fp8 is not None
        self._is_expert_fp8 = model.fp8 is not None and (
            held.keeps_fp8 if keeps_expert is None else keeps_expert
        )

    def parts(self, *, has_mtp: bool = True) -> dict[str, int]:
        """Bytes by part, in the order of a table; what a model lacks is left out.

        Args:
            has_mtp: count the MTP layer that the config announces.
        """
        model = self._model
        num_mtp = model.num_nextn_predict_layers if has_mtp else 0
        layers = range(model.num_hidden_layers + num_mtp)
        num_moe = sum(model.is_moe_layer(i) for i in layers)
        num_dense = len(layers) - num_moe
        sizes = {
            "embedding and head": self.vocabulary(),
            "attention": len(layers) * self.attention(),
            "dense MLPs": num_dense * self.mlp(model.intermediate_size),
            "routed experts": num_moe * self.routed_experts(),
            "shared experts": num_moe * self.shared_experts(),
            "routers": num_moe * self.router(),
            "norms": (2 * len(layers) + 1) * _FLOAT32 * model.hidden_size,
            "MTP projection": num_mtp * self._mtp_projection(),
        }
        return {name: size for name, size in sizes.items() if size}

    def vocabulary(self) -> int:
        """Embedding and head, one of them where they are tied."""
        model = self._model
        rows = model.vocab_size // self._layout.tensor_parallel_size
        return (1 if model.tie_word_embeddings else 2) * rows * model.hidden_size * self._item

    def attention(self) -> int:
        """A layer's attention; `kv_b_proj` is held split and widened."""
        model, tp = self._model, self._layout.tensor_parallel_size
        heads, hidden, latent = (
            model.num_attention_heads // tp,
            model.hidden_size,
            model.kv_lora_rank,
        )
        queries = heads * model.qk_head_dim
        expanded = heads * (model.qk_nope_head_dim + model.v_head_dim)
        norms = latent
        if model.q_lora_rank is None:
            size = self._matrix(queries, hidden)
        else:
            size = self._matrix(model.q_lora_rank, hidden)
            size += self._matrix(queries, model.q_lora_rank)
            norms += model.q_lora_rank
        size += self._matrix(latent + model.qk_rope_head_dim, hidden)
        size += self._matrix(hidden, heads * model.v_head_dim)
        return size + expanded * latent * self._item + norms * _FLOAT32

    def mlp(self, width: int) -> int:
        """A dense MLP or a shared expert of this width, cut by tensor parallelism."""
        return self._mlp(width // self._layout.tensor_parallel_size, fp8=self._is_fp8)

    def shared_experts(self) -> int:
        """A layer's shared experts, which are one MLP."""
        model = self._model
        width = model.moe_intermediate_size * model.n_shared_experts
        return self.mlp(width) if width else 0

    def expert(self) -> int:
        """One routed expert, whole."""
        return self._mlp(self._model.moe_intermediate_size, fp8=self._is_expert_fp8)

    def routed_experts(self) -> int:
        """A layer's routed experts on this rank."""
        layout = self._layout
        if layout.expert_parallel:
            return layout.experts_per_rank(self._model) * self.expert()
        width = self._model.moe_intermediate_size // layout.num_ranks
        return self._model.n_routed_experts * self._mlp(width, fp8=self._is_expert_fp8)

    def router(self) -> int:
        """A layer's router with its correction bias."""
        model = self._model
        columns = model.hidden_size + int(model.has_correction_bias)
        return model.n_routed_experts * columns * _FLOAT32

    def _mtp_projection(self) -> int:
        hidden = self._model.hidden_size
        return 2 * hidden * hidden * self._item + 3 * hidden * _FLOAT32

    def _mlp(self, width: int, *, fp8: bool) -> int:
        hidden = self._model.hidden_size
        # gate and up lie in one matrix: FP8 only where the gate ends with a block
        aligned = width % FP8_BLOCK == 0
        gate_up = self._matrix(2 * width, hidden, fp8=fp8 and aligned)
        return gate_up + self._matrix(hidden, width, fp8=fp8)

    def _matrix(self, rows: int, columns: int, *, fp8: bool | None = None) -> int:
        if not (self._is_fp8 if fp8 is None else fp8):
            return rows * columns * self._item
        blocks = -(-rows // FP8_BLOCK) * -(-columns // FP8_BLOCK)
        return rows * columns + blocks * _FLOAT32
