"""`config.json` -> a validated `ModelConfig`; field names are those of the checkpoints.

Written by DeepSeek, by transformers 4 or by transformers 5: `rope_scaling` or `rope_parameters`,
scoring function and top-k method given or implied by the architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leadline.loader.config_reader import ConfigReader
from leadline.loader.errors import ConfigFileError, UnsupportedModelError
from leadline.loader.json_files import read_json_object
from leadline.loader.moe_fields import moe_fields

V2, V3 = "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"
ARCHITECTURES = (V2, V3)
_BY_MODEL_TYPE = {"deepseek_v2": V2, "deepseek_v3": V3, "kimi_k2": V3}
FP8_BLOCK = 128
_DTYPES = ("float32", "bfloat16", "float16")
_ROPE_TYPES = ("default", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnConfig:
    """YaRN's settings (Peng et al., 2023).

    Attributes:
        mscale: of the rotary tables' magnitude; 0 where config.json has neither this nor the next.
        mscale_all_dim: of the softmax scale.
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float
    beta_slow: float
    mscale: float
    mscale_all_dim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8Config:
    """FP8 e4m3 weights with one scale per 128x128 block.

    Attributes:
        scale_fmt: `ue8m0` where scales are powers of two, else None.
    """

    scale_fmt: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a model of the family, every field in range and consistent.

    Attributes:
        q_lora_rank: rank of the compressed query; None where queries are not compressed.
        n_routed_experts: 0 for a model without MoE layers.
        scoring_func: `sigmoid` or `softmax`.
        topk_method: `noaux_tc`, `greedy` or `group_limited_greedy`.
        num_nextn_predict_layers: MTP layers that the config announces, 0 or 1.
        dtype: of the weights that are not FP8: `float32`, `bfloat16` or `float16`.
        fp8: None for a checkpoint without FP8 weights.
        eos_token_ids: end tokens, as config.json gives them.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_nextn_predict_layers: int
    num_attention_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    intermediate_size: int
    moe_intermediate_size: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    first_k_dense_replace: int
    moe_layer_freq: int
    scoring_func: str
    topk_method: str
    norm_topk_prob: bool
    routed_scaling_factor: float
    rms_norm_eps: float
    rope_theta: float
    yarn: YarnConfig | None
    max_position_embeddings: int
    tie_word_embeddings: bool
    dtype: str
    fp8: Fp8Config | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]

    @property
    def qk_head_dim(self) -> int:
        """Width of a head's query: the part without position and the rotated part."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def has_correction_bias(self) -> bool:
        """Whether the router has `e_score_correction_bias`."""
        return self.topk_method == "noaux_tc"

    def is_moe_layer(self, layer: int) -> bool:
        """Whether a layer's feed-forward block is a mixture of experts (the MTP layer too)."""
        return (
            self.n_routed_experts > 0
            and layer >= self.first_k_dense_replace
            and layer % self.moe_layer_freq == 0
        )


def read_model_config(directory: Path) -> ModelConfig:
    """The config of a checkpoint's directory.

    Raises:
        ConfigFileError: no readable config.json, or values that are missing or out of range.
        UnsupportedModelError: an architecture or option that is not supported.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise ConfigFileError(
            f"{path} does not exist; give the directory of a checkpoint in Hugging Face format"
        )
    return parse_model_config(read_json_object(path, ConfigFileError))


def parse_model_config(raw: Mapping[str, Any]) -> ModelConfig:
    """A validated config from the fields of `config.json`.

    Raises:
        ConfigFileError, UnsupportedModelError: as `read_model_config`; all problems in one error.
    """
    architecture = _architecture(raw)
    reader = ConfigReader(raw)
    _refuse_unsupported(reader, architecture)
    moe = moe_fields(reader, is_v3=architecture == V3)
    rope = _rope_fields(reader)
    config = ModelConfig(
        architecture=architecture,
        vocab_size=reader.integer("vocab_size"),
        hidden_size=reader.integer("hidden_size"),
        num_hidden_layers=reader.integer("num_hidden_layers"),
        num_nextn_predict_layers=reader.integer(
            "num_nextn_predict_layers", default=0, low=0, high=1
        ),
        num_attention_heads=reader.integer("num_attention_heads"),
        q_lora_rank=reader.optional_integer("q_lora_rank"),
        kv_lora_rank=reader.integer("kv_lora_rank"),
        qk_nope_head_dim=reader.integer("qk_nope_head_dim"),
        qk_rope_head_dim=reader.integer("qk_rope_head_dim", low=2),
        v_head_dim=reader.integer("v_head_dim"),
        intermediate_size=reader.integer("intermediate_size"),
        rms_norm_eps=reader.number("rms_norm_eps", default=1e-6),
        max_position_embeddings=reader.integer("max_position_embeddings"),
        tie_word_embeddings=reader.boolean("tie_word_embeddings", default=False),
        dtype=_dtype(reader),
        fp8=_fp8(reader),
        bos_token_id=reader.optional_integer("bos_token_id", low=0),
        eos_token_ids=reader.integers("eos_token_id"),
        **moe,
        **rope,
    )
    _check_consistency(reader, config)
    reader.raise_problems()
    return config


def _architecture(raw: Mapping[str, Any]) -> str:
    """The first of `architectures`, or what `model_type` implies where none is written."""
    names = raw.get("architectures")
    if not names:
        architecture = _BY_MODEL_TYPE.get(str(raw.get("model_type")))
    else:
        architecture = str(names[0]) if isinstance(names, list) else str(names)
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"config.json: architectures = {names!r} with model_type = "
            f"{raw.get('model_type')!r} is not supported; Leadline serves "
            f"{' and '.join(ARCHITECTURES)}"
        )
    return architecture


def _refuse_unsupported(reader: ConfigReader, architecture: str) -> None:
    """Options that would change the numbers and that the model code does not have.

    `num_key_value_heads` is not among them: MLA expands one latent into keys and values of every
    head, whatever it says; nor are `ep_size`, dropout and losses, which belong to training.
    """
    reader.require("hidden_act", "silu")
    reader.require("attention_bias", False)
    reader.require("mlp_bias", False)
    reader.require("rope_interleave", True)
    reader.require("pretraining_tp", 1)
    reader.require("qk_layernorm", False)
    reader.require("scoring_func", "sigmoid" if architecture == V3 else "softmax")
    if architecture == V2:
        reader.require("norm_topk_prob", False)


def _rope_fields(reader: ConfigReader) -> dict[str, Any]:
    name = "rope_parameters" if reader.has("rope_parameters") else "rope_scaling"
    rope = reader.section(name)
    theta_source = rope if rope.has("rope_theta") else reader
    theta = theta_source.number("rope_theta", default=10_000.0)
    key = "rope_type" if rope.has("rope_type") else "type"
    if rope.has("factor") and not rope.has(key):
        rope.problem(f"{name} has a factor but no rope_type; allowed: {', '.join(_ROPE_TYPES)}")
    if rope.choice(key, _ROPE_TYPES, default="default") == "default":
        return {"rope_theta": theta, "yarn": None}
    return {"rope_theta": theta, "yarn": _yarn(rope)}


def _yarn(rope: ConfigReader) -> YarnConfig:
    rope.require("attention_factor", None)
    rope.require("truncate", True)
    if rope.has("mscale") != rope.has("mscale_all_dim"):
        # from one alone, DeepSeek's code and transformers compute different magnitudes
        rope.unsupported(
            "rope scaling with only one of mscale and mscale_all_dim is not supported; "
            "give both or none"
        )
    return YarnConfig(
        factor=rope.number("factor", low=1.0),
        original_max_position_embeddings=rope.integer("original_max_position_embeddings"),
        beta_fast=rope.number("beta_fast", default=32.0),
        beta_slow=rope.number("beta_slow", default=1.0),
        mscale=rope.number("mscale") if rope.has("mscale") else 0.0,
        mscale_all_dim=rope.number("mscale_all_dim") if rope.has("mscale_all_dim") else 0.0,
    )


def _dtype(reader: ConfigReader) -> str:
    name = "dtype" if reader.has("dtype") else "torch_dtype"
    return reader.choice(name, _DTYPES, default="bfloat16")


def _fp8(reader: ConfigReader) -> Fp8Config | None:
    quantization = reader.section("quantization_config")
    if quantization.is_empty:
        return None
    quantization.require("quant_method", "fp8", present=True)
    quantization.require("fmt", "e4m3")
    quantization.require("activation_scheme", "dynamic")
    quantization.require("weight_block_size", [FP8_BLOCK, FP8_BLOCK], present=True)
    quantization.require("expert_dtype", "fp8")
    scale_fmt = quantization.choice("scale_fmt", ("ue8m0", "float", "none"), default="none")
    return Fp8Config(scale_fmt="ue8m0" if scale_fmt == "ue8m0" else None)


def _check_consistency(reader: ConfigReader, config: ModelConfig) -> None:
    if config.qk_rope_head_dim % 2:
        reader.problem(f"qk_rope_head_dim is {config.qk_rope_head_dim}; it must be even")
    dense = config.first_k_dense_replace
    comparable = reader.sound("first_k_dense_replace", "num_hidden_layers")
    if dense > config.num_hidden_layers and comparable:
        reader.problem(
            f"first_k_dense_replace is {dense}; allowed: 0 to num_hidden_layers = "
            f"{config.num_hidden_layers}"
        )
