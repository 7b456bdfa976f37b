"""The public models of the family by name: as much of their config.json as plans need.

For plans before anything is downloaded; a checkpoint's own config.json always comes first.
"""

from typing import Any

from leadline.loader.model_config import ModelConfig, parse_model_config

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
    "deepseek-v3": _V3,
    "deepseek-v3-0324": _V3,
    "deepseek-v3.1": _V3,
    "deepseek-r1": _V3,
    "deepseek-r1-0528": _V3,
    "deepseek-v2": _V2,
    "deepseek-v2-lite": _V2_LITE,
    "kimi-k2-instruct": _KIMI_K2,
}


def known_config(name: str) -> ModelConfig | None:
    """The config of a public model by its name, with or without its owner's; None if unknown."""
    raw = FAMILY.get(name.rpartition("/")[2].lower())
    return None if raw is None else parse_model_config(raw)
