"""The public models of the family by name: as much of their config.json as plans need.

For plans before anything is downloaded; a checkpoint's own config.json always comes first.
"""

from pathlib import Path
from typing import Any

from leadline.loader.errors import ModelNotFoundError
from leadline.loader.hub import BUILTIN_MODEL, find_model
from leadline.loader.model_config import ModelConfig, parse_model_config, read_model_config

_FP8 = {
    "quant_method": "fp8",
    "fmt": "e4m3",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "first_k_dense_replace": 3,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
    "quantization_config": _FP8,
}
_KIMI_K2: dict[str, Any] = _V3 | {
    "vocab_size": 163840,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 64,
    "n_routed_experts": 384,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.827,
    "max_position_embeddings": 131072,
}
_V2: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 102400,
    "hidden_size": 5120,
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "n_group": 8,
    "topk_group": 3,
    "first_k_dense_replace": 1,
    "topk_method": "group_limited_greedy",
    "routed_scaling_factor": 16.0,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
_V2_LITE: dict[str, Any] = _V2 | {
    "hidden_size": 2048,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "q_lora_rank": None,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "routed_scaling_factor": 1.0,
}
FAMILY: dict[str, dict[str, Any]] = {
    "deepseek-ai/DeepSeek-V3": _V3,
    "deepseek-ai/DeepSeek-V3-0324": _V3,
    "deepseek-ai/DeepSeek-V3.1": _V3,
    "deepseek-ai/DeepSeek-R1": _V3,
    "deepseek-ai/DeepSeek-R1-0528": _V3,
    "deepseek-ai/DeepSeek-V2": _V2,
    "deepseek-ai/DeepSeek-V2-Lite": _V2_LITE,
    "moonshotai/Kimi-K2-Instruct": _KIMI_K2,
}
_HUB_NAMES = {name.partition("/")[2].lower(): name for name in FAMILY}


def hub_name(name: str) -> str | None:
    """A public model's name in the hub, from this or from what follows the owner's; else None."""
    hub = _HUB_NAMES.get(name.rpartition("/")[2].lower())
    return hub if hub is not None and name.lower() in (hub.lower(), short_name(hub)) else None


def short_name(hub: str) -> str:
    """What users call a model for short: `deepseek-v3`."""
    return hub.partition("/")[2].lower()


def known_config(name: str) -> ModelConfig | None:
    """The config of a public model by its name, with or without its owner's; None if unknown."""
    hub = hub_name(name)
    return None if hub is None else parse_model_config(FAMILY[hub])


def find_config(name: str, *, cache_directory: Path | None = None) -> ModelConfig:
    """The config of a model whose weights need not be here; nothing is downloaded.

    Args:
        name: a directory with a config.json, `leadline-demo`, a Hugging Face name whose config is
            in the cache, or a public model of the family.
        cache_directory: of the hub; None for its own choice.

    Raises:
        LoaderError: no such model is known here, or its config is not supported.
    """
    if name == BUILTIN_MODEL or Path(name).expanduser().is_dir():
        directory = find_model(name)
        assert directory is not None, "what is a directory is on this machine"
        return read_model_config(directory)
    cached = _cached_config(name, cache_directory)
    if cached is not None:
        return read_model_config(cached.parent)
    known = known_config(name)
    if known is None:
        names = ", ".join(map(short_name, FAMILY))
        raise ModelNotFoundError(
            f"no config.json of {name!r} is here; give a directory that holds one, a Hugging Face "
            f"name whose config.json is in the cache, or one of {names}"
        )
    return known


def _cached_config(name: str, cache_directory: Path | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", cache_dir=cache_directory)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None
