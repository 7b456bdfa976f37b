"""Which tensors a checkpoint of a config must hold, under which names, of which shapes."""

from collections.abc import Iterator
from dataclasses import dataclass

from leadline.loader.model_config import ModelConfig

SCALE_SUFFIX = "_scale_inv"
IGNORED_SUFFIXES = ("rotary_emb.inv_freq",)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What is expected under one name.

    Attributes:
        shape: of the whole tensor.
        quantized: FP8 with a `*_scale_inv` companion, where the config says FP8.
        optional: may be absent.
    """

    shape: tuple[int, ...]
    quantized: bool = False
    optional: bool = False


Specs = Iterator[tuple[str, TensorSpec]]


def expected_tensors(config: ModelConfig) -> dict[str, TensorSpec]:
    """Every tensor of the main model and, where announced, of the MTP layer."""
    specs = dict(_main(config))
    for i in range(config.num_nextn_predict_layers):
        specs |= dict(_mtp(config, config.num_hidden_layers + i))
    return specs


def mtp_prefix(config: ModelConfig) -> str:
    """What the names of the MTP layer's tensors begin with."""
    return f"model.layers.{config.num_hidden_layers}."


def _main(config: ModelConfig) -> Specs:
    vocabulary = TensorSpec((config.vocab_size, config.hidden_size))
    yield "model.embed_tokens.weight", vocabulary
    for i in range(config.num_hidden_layers):
        yield from _layer(config, i)
    yield "model.norm.weight", _vector(config.hidden_size)
    tied = config.tie_word_embeddings
    yield "lm_head.weight", TensorSpec(vocabulary.shape, optional=tied)


def _mtp(config: ModelConfig, index: int) -> Specs:
    prefix, hidden = f"model.layers.{index}", config.hidden_size
    copy = TensorSpec((config.vocab_size, hidden), optional=True)
    yield f"{prefix}.embed_tokens.weight", copy
    yield f"{prefix}.enorm.weight", _vector(hidden)
    yield f"{prefix}.hnorm.weight", _vector(hidden)
    yield f"{prefix}.eh_proj.weight", TensorSpec((hidden, 2 * hidden))
    yield f"{prefix}.shared_head.norm.weight", _vector(hidden)
    yield f"{prefix}.shared_head.head.weight", copy
    yield from _layer(config, index)


def _vector(size: int) -> TensorSpec:
    return TensorSpec((size,))


def _matrix(rows: int, columns: int) -> TensorSpec:
    return TensorSpec((rows, columns), quantized=True)


def _layer(config: ModelConfig, index: int) -> Specs:
    prefix = f"model.layers.{index}"
    yield f"{prefix}.input_layernorm.weight", _vector(config.hidden_size)
    yield from _attention(config, f"{prefix}.self_attn")
    yield f"{prefix}.post_attention_layernorm.weight", _vector(config.hidden_size)
    if config.is_moe_layer(index):
        yield from _moe(config, f"{prefix}.mlp")
    else:
        yield from _mlp(config.hidden_size, config.intermediate_size, f"{prefix}.mlp")


def _attention(config: ModelConfig, prefix: str) -> Specs:
    hidden, heads, latent = config.hidden_size, config.num_attention_heads, config.kv_lora_rank
    queries = heads * config.qk_head_dim
    if config.q_lora_rank is None:
        yield f"{prefix}.q_proj.weight", _matrix(queries, hidden)
    else:
        yield f"{prefix}.q_a_proj.weight", _matrix(config.q_lora_rank, hidden)
        yield f"{prefix}.q_a_layernorm.weight", _vector(config.q_lora_rank)
        yield f"{prefix}.q_b_proj.weight", _matrix(queries, config.q_lora_rank)
    compressed = latent + config.qk_rope_head_dim
    yield f"{prefix}.kv_a_proj_with_mqa.weight", _matrix(compressed, hidden)
    yield f"{prefix}.kv_a_layernorm.weight", _vector(latent)
    expanded = heads * (config.qk_nope_head_dim + config.v_head_dim)
    yield f"{prefix}.kv_b_proj.weight", _matrix(expanded, latent)
    yield f"{prefix}.o_proj.weight", _matrix(hidden, heads * config.v_head_dim)


def _mlp(hidden: int, width: int, prefix: str) -> Specs:
    yield f"{prefix}.gate_proj.weight", _matrix(width, hidden)
    yield f"{prefix}.up_proj.weight", _matrix(width, hidden)
    yield f"{prefix}.down_proj.weight", _matrix(hidden, width)


def _moe(config: ModelConfig, prefix: str) -> Specs:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    yield f"{prefix}.gate.weight", TensorSpec((config.n_routed_experts, hidden))
    if config.has_correction_bias:
        yield f"{prefix}.gate.e_score_correction_bias", _vector(config.n_routed_experts)
    for i in range(config.n_routed_experts):
        yield from _mlp(hidden, width, f"{prefix}.experts.{i}")
    if config.n_shared_experts:
        yield from _mlp(hidden, width * config.n_shared_experts, f"{prefix}.shared_experts")
