"""Bytes of cached latents."""

from leadline.engine.planning.weight_bytes import DTYPE_BYTES
from leadline.loader.model_config import ModelConfig

_FP8_GROUP = 128  # latent values that share a float32 scale


def latent_bytes_per_layer(model: ModelConfig, kv_cache_dtype: str) -> int:
    """Cache bytes of one token in one layer."""
    latent, rope = model.kv_lora_rank, model.qk_rope_head_dim
    if kv_cache_dtype == "fp8":
        num_scales = -(-latent // _FP8_GROUP)
        return latent + num_scales * DTYPE_BYTES["float32"] + rope * DTYPE_BYTES["bfloat16"]
    return (latent + rope) * DTYPE_BYTES[kv_cache_dtype]


def latent_bytes_per_token(model: ModelConfig, kv_cache_dtype: str, *, has_mtp: bool = True) -> int:
    """Cache bytes of one token in all layers, the MTP layer included if it is there."""
    num_layers = model.num_hidden_layers + model.num_nextn_predict_layers * has_mtp
    return num_layers * latent_bytes_per_layer(model, kv_cache_dtype)
