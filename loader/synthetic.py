"""Random checkpoints in the real format and of any size, for tests and benchmarks."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leadline.loader.model_config import ModelConfig, parse_model_config
from leadline.loader.tensor_specs import expected_tensors, mtp_prefix
from leadline.loader.writer import DEFAULT_SHARD_BYTES, write_weights

_FP8 = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
_YARN = {
    "type": "yarn",
    "factor": 4,
    "original_max_position_embeddings": 64,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}


def tiny_v3() -> dict[str, Any]:
    """DeepSeek-V3 in small: q-lora, 16 experts in 4 groups, YaRN, one MTP layer."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": 512,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
        "intermediate_size": 160,
        "moe_intermediate_size": 40,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "num_experts_per_tok": 4,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000,
        "rope_scaling": dict(_YARN),
        "max_position_embeddings": 256,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }


def tiny_v2_lite() -> dict[str, Any]:
    """DeepSeek-V2-Lite in small: no q-lora, softmax gating without groups, two shared experts."""
    config = tiny_v3()
    del config["num_nextn_predict_layers"]
    return config | {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "q_lora_rank": None,
        "n_shared_experts": 2,
        "n_group": 1,
        "topk_group": 1,
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "norm_topk_prob": False,
        "routed_scaling_factor": 1.0,
        "rope_scaling": _YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    }


def tiny_kimi() -> dict[str, Any]:
    """Kimi-K2 in small: the V3 architecture with one group, other sizes, no MTP layer."""
    return tiny_v3() | {
        "num_nextn_predict_layers": 0,
        "hidden_size": 96,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "q_lora_rank": 48,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 2.827,
        "rope_theta": 50000,
        "rope_scaling": _YARN | {"beta_fast": 1.0, "factor": 2},
    }


def random_tensors(
    config: ModelConfig, seed: int, *, with_mtp: bool
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a config, one after the other, float32; shared MTP copies are left out.

    Products keep unit scale; norms are near 1; correction biases are small, and not all alike.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, spec in expected_tensors(config).items():
        is_mtp = name.startswith(mtp_prefix(config))
        if spec.optional or (is_mtp and not with_mtp):
            continue
        if name.endswith("e_score_correction_bias"):
            yield name, torch.randn(spec.shape, generator=generator) * 0.1
        elif len(spec.shape) == 1:
            yield name, 1 + torch.randn(spec.shape, generator=generator) * 0.2
        else:
            scale = 1 / math.sqrt(spec.shape[-1])
            yield name, torch.randn(spec.shape, generator=generator) * scale


def write_checkpoint(
    directory: Path,
    config: dict[str, Any],
    *,
    seed: int = 0,
    fmt: str = "bfloat16",
    scale_fmt: str | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    with_mtp: bool = True,
) -> ModelConfig:
    """Write `config.json` and random weights into a directory, which is made if need be.

    Args:
        directory: where to write.
        config: fields of `config.json`, as the presets of this module return.
        seed: of the random weights.
        fmt: `float32`, `bfloat16`, `float16` or `fp8` (what is not FP8 is then BF16).
        scale_fmt: `ue8m0` for scales that are powers of two; for `fp8` only.
        max_shard_bytes: a larger sum of tensors starts the next file.
        with_mtp: write the MTP layer that the config announces.
    """
    assert scale_fmt is None or fmt == "fp8", "only FP8 has scales"
    raw = config | {"torch_dtype": "bfloat16" if fmt == "fp8" else fmt}
    if fmt == "fp8":
        raw["quantization_config"] = _FP8 | ({"scale_fmt": scale_fmt} if scale_fmt else {})
    parsed = parse_model_config(raw)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    tensors = random_tensors(parsed, seed, with_mtp=with_mtp)
    write_weights(directory, parsed, tensors, max_shard_bytes=max_shard_bytes)
    return parsed
