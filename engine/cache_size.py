"""How many pages the latent cache has, and how long a request may be."""

from dataclasses import dataclass
from typing import Protocol

from leadline.engine.errors import ConfigError
from leadline.engine.platform_facts import PlatformFacts

_CACHE_MEMORY_SHARE = 0.25
_CPU_CACHE_BYTES = 4 * 2**30
_BYTES = {"float32": 4, "bfloat16": 2}
_FP8_GROUP = 128  # latent values that share a float32 scale


class ModelSizes(Protocol):
    """What `resolve` reads of a checkpoint's config (`loader.model_config.ModelConfig`)."""

    @property
    def max_position_embeddings(self) -> int:
        """Positions that the model was made for."""
        ...

    @property
    def num_hidden_layers(self) -> int:
        """Main layers."""
        ...

    @property
    def num_nextn_predict_layers(self) -> int:
        """MTP layers."""
        ...

    @property
    def kv_lora_rank(self) -> int:
        """Values of a token's latent."""
        ...

    @property
    def qk_rope_head_dim(self) -> int:
        """Values of a token's rotated key."""
        ...


def latent_bytes_per_token(model: ModelSizes, kv_cache_dtype: str, *, has_mtp: bool = True) -> int:
    """Cache bytes of one token in all layers, the MTP layer included if it is there."""
    num_layers = model.num_hidden_layers + model.num_nextn_predict_layers * has_mtp
    latent, rope = model.kv_lora_rank, model.qk_rope_head_dim
    if kv_cache_dtype == "fp8":
        num_scales = -(-latent // _FP8_GROUP)
        return num_layers * (latent + num_scales * _BYTES["float32"] + rope * _BYTES["bfloat16"])
    return num_layers * (latent + rope) * _BYTES[kv_cache_dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSize:
    """What was settled, and why.

    Attributes:
        model_len_reason: None if the user gave the length.
    """

    max_model_len: int
    num_pages: int
    model_len_reason: str | None
    cache_reason: str


def settle_cache_size(
    *,
    model: ModelSizes,
    facts: PlatformFacts,
    token_bytes: int,
    page_size: int,
    max_num_seqs: int,
    max_model_len: int | None,
    kv_tokens: int | None,
) -> CacheSize:
    """The model length and the number of pages; None leaves the choice to this function.

    Raises:
        ConfigError: a length that the model or the cache does not allow, with the numbers.
    """
    longest = model.max_position_embeddings
    if max_model_len is not None and max_model_len > longest:
        raise ConfigError(
            f"max_model_len is {max_model_len}, but the model's positions end at {longest}; "
            f"allowed: 2 to {longest}"
        )
    wanted_len = max_model_len or longest
    if kv_tokens is not None:
        num_pages, cache_reason = kv_tokens // page_size, "as given"
    else:
        budget_bytes = int(facts.available_bytes * _CACHE_MEMORY_SHARE)
        if facts.device == "cpu":
            budget_bytes = min(budget_bytes, _CPU_CACHE_BYTES)
        most_pages = budget_bytes // (token_bytes * page_size)
        useful_pages = max_num_seqs * -(-wanted_len // page_size)
        num_pages = min(most_pages, useful_pages)
        cache_reason = (
            "enough for max_num_seqs requests of max_model_len"
            if num_pages == useful_pages
            else f"what {budget_bytes / 2**30:.1f} GiB hold"
        )
    num_tokens = num_pages * page_size
    if num_tokens < 2 or (max_model_len is not None and num_tokens < wanted_len):
        raise ConfigError(
            f"the cache holds {num_tokens} tokens ({cache_reason}), but a request may have "
            f"{wanted_len}; lower max_model_len, or raise kv_tokens ({token_bytes} bytes a token)"
        )
    settled_len = min(wanted_len, num_tokens)
    reason = "the model's" if settled_len == longest else "what the cache holds"
    return CacheSize(
        max_model_len=settled_len,
        num_pages=num_pages,
        model_len_reason=None if max_model_len is not None else reason,
        cache_reason=cache_reason,
    )
