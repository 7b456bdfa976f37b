"""What the user asked for, and what the engine runs with: two types, so that no "auto" is left."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from leadline.engine.errors import ConfigError
from leadline.engine.executor.base import Capacity
from leadline.engine.platform_facts import PlatformFacts
from leadline.engine.request import MAX_SEED

MAX_PAGE_SIZE = 1024
_CACHE_MEMORY_SHARE = 0.25
_CPU_CACHE_BYTES = 4 * 2**30
_BYTES = {"float32": 4, "bfloat16": 2}
_FP8_GROUP = 128  # latent values that share a float32 scale


def _option(default: Any, help_text: str, *, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The engine as the user asked for it; None and "auto" leave the choice to `resolve`.

    Each field's metadata holds `help` (a phrase for people) and `choices` (or None).
    """

    model: str = _option(
        "leadline-demo", "directory, Hugging Face name (org/name), or the built-in leadline-demo"
    )
    served_model_name: str | None = _option(None, "name in the API (default: as MODEL is given)")
    max_model_len: int | None = _option(
        None, "most tokens of a request, prompt and output (default: the model's own length)"
    )
    page_size: int = _option(64, f"tokens a cache page, 1 to {MAX_PAGE_SIZE}")
    kv_cache_dtype: str = _option(
        "auto", "number format of cached latents", choices=("auto", "float32", "bfloat16", "fp8")
    )
    kv_tokens: int | None = _option(
        None, "tokens that the cache holds (default: as many as memory and requests call for)"
    )
    max_num_seqs: int = _option(64, "most requests in one step")
    max_num_batched_tokens: int | None = _option(
        None, "most tokens in one step (default: 512 on a CPU, 8192 on a GPU)"
    )
    prefix_caching: bool = _option(True, "reuse the cached pages of equal prompt beginnings")
    seed: int | None = _option(
        None, "source of the seeds of requests that give none (default: drawn at start)"
    )
    num_threads: int | None = _option(None, "CPU threads of the model (default: one a core)")
    dtype: str = _option(
        "auto", "number format of activations", choices=("auto", "float32", "bfloat16")
    )
    kernels: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "implementation of an operation, as operation=name", "choices": None},
    )
    batch_invariant: bool | None = _option(
        None, "same bits for a request in every batch (default: on for a CPU, off for a GPU)"
    )


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The engine as it runs; crosses to the engine process as JSON.

    Attributes:
        model: directory of the checkpoint.
        max_model_len: most tokens of a request.
        num_pages: pages in the cache.
        kernels: operation -> implementation, where the user chose one.
    """

    model: str
    served_model_name: str
    device: str
    max_model_len: int
    page_size: int
    num_pages: int
    kv_cache_dtype: str
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    seed: int
    num_threads: int
    dtype: str
    kernels: dict[str, str]
    batch_invariant: bool

    def capacity(self) -> Capacity:
        """The sizes that the scheduler plans within."""
        return Capacity(
            num_pages=self.num_pages,
            page_size=self.page_size,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
        )


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


class ConfigLine(NamedTuple):
    """One resolved value, for the start-up table."""

    name: str
    value: str
    reason: str


def latent_bytes_per_token(model: ModelSizes, kv_cache_dtype: str) -> int:
    """Cache bytes of one token in all layers, the MTP layer included."""
    num_layers = model.num_hidden_layers + model.num_nextn_predict_layers
    latent, rope = model.kv_lora_rank, model.qk_rope_head_dim
    if kv_cache_dtype == "fp8":
        num_scales = -(-latent // _FP8_GROUP)
        return num_layers * (latent + num_scales * _BYTES["float32"] + rope * _BYTES["bfloat16"])
    return num_layers * (latent + rope) * _BYTES[kv_cache_dtype]


def resolve(
    config: EngineConfig, model: ModelSizes, facts: PlatformFacts, *, model_path: str
) -> tuple[ResolvedConfig, list[ConfigLine]]:
    """Settle every open choice for a model on a machine.

    Args:
        config: what the user asked for.
        model: the checkpoint's own config.
        facts: the machine, before the weights are loaded.
        model_path: the checkpoint's directory.

    Returns:
        The resolved config, and a line for each value with the reason for it.

    Raises:
        ConfigError: a value out of range, or one that this model or machine cannot honour.
    """
    _check_ranges(config)
    is_cpu = facts.device == "cpu"
    dtype = _either(config.dtype, "float32" if is_cpu else "bfloat16")
    kv_cache_dtype = _either(config.kv_cache_dtype, dtype)
    token_bytes = latent_bytes_per_token(model, kv_cache_dtype)
    max_model_len, num_pages, sizes = _resolve_sizes(config, model, facts, token_bytes)
    num_batched = config.max_num_batched_tokens
    if num_batched is None:
        num_batched = max(512 if is_cpu else 8192, config.max_num_seqs)
    resolved = ResolvedConfig(
        model=model_path,
        served_model_name=config.served_model_name or config.model,
        device=facts.device,
        max_model_len=max_model_len,
        page_size=config.page_size,
        num_pages=num_pages,
        kv_cache_dtype=kv_cache_dtype,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=num_batched,
        prefix_caching=config.prefix_caching,
        seed=secrets.randbits(64) if config.seed is None else config.seed,
        num_threads=config.num_threads or facts.num_cores,
        dtype=dtype,
        kernels=dict(config.kernels),
        batch_invariant=is_cpu if config.batch_invariant is None else config.batch_invariant,
    )
    return resolved, [*sizes, *_lines(config, resolved)]


def _lines(config: EngineConfig, resolved: ResolvedConfig) -> list[ConfigLine]:
    """A line for each value that `_resolve_sizes` has not explained."""
    explained = ("model", "max_model_len", "num_pages")
    return [
        ConfigLine(name, _shown(getattr(resolved, name)), _reason(config, name))
        for name in ResolvedConfig.__struct_fields__
        if name not in explained
    ]


def _check_ranges(config: EngineConfig) -> None:
    problems = []
    for name, low, high in (
        ("page_size", 1, MAX_PAGE_SIZE),
        ("max_model_len", 2, None),
        ("kv_tokens", config.page_size, None),
        ("max_num_seqs", 1, None),
        ("max_num_batched_tokens", config.max_num_seqs, None),
        ("num_threads", 1, None),
        ("seed", 0, MAX_SEED),
    ):
        value = getattr(config, name)
        if value is not None and (value < low or (high is not None and value > high)):
            allowed = f"{low} to {high}" if high is not None else f"at least {low}"
            problems.append(f"{name} is {value}; allowed: {allowed}")
    for name in ("kv_cache_dtype", "dtype"):
        choices = EngineConfig.__dataclass_fields__[name].metadata["choices"]
        if getattr(config, name) not in choices:
            problems.append(f"{name} is {getattr(config, name)!r}; allowed: {', '.join(choices)}")
    if problems:
        raise ConfigError("; ".join(problems))


def _resolve_sizes(
    config: EngineConfig, model: ModelSizes, facts: PlatformFacts, token_bytes: int
) -> tuple[int, int, list[ConfigLine]]:
    """The model length, the number of pages, and why."""
    longest = model.max_position_embeddings
    if config.max_model_len is not None and config.max_model_len > longest:
        raise ConfigError(
            f"max_model_len is {config.max_model_len}, but the model's positions end at {longest}; "
            f"allowed: 2 to {longest}"
        )
    wanted_len = config.max_model_len or longest
    if config.kv_tokens is not None:
        num_pages, cache_reason = config.kv_tokens // config.page_size, "as given"
    else:
        budget_bytes = int(facts.available_bytes * _CACHE_MEMORY_SHARE)
        if facts.device == "cpu":
            budget_bytes = min(budget_bytes, _CPU_CACHE_BYTES)
        most_pages = budget_bytes // (token_bytes * config.page_size)
        useful_pages = config.max_num_seqs * -(-wanted_len // config.page_size)
        num_pages = min(most_pages, useful_pages)
        cache_reason = (
            "enough for max_num_seqs requests of max_model_len"
            if num_pages == useful_pages
            else f"what {budget_bytes / 2**30:.1f} GiB hold"
        )
    num_tokens = num_pages * config.page_size
    if num_tokens < 2 or (config.max_model_len is not None and num_tokens < wanted_len):
        raise ConfigError(
            f"the cache holds {num_tokens} tokens ({cache_reason}), but a request may have "
            f"{wanted_len}; lower max_model_len, or raise kv_tokens ({token_bytes} bytes a token)"
        )
    max_model_len = min(wanted_len, num_tokens)
    len_reason = _reason(config, "max_model_len")
    if config.max_model_len is None:
        len_reason = "the model's" if max_model_len == longest else "what the cache holds"
    size_text = f"{num_tokens} ({num_tokens * token_bytes / 2**20:.0f} MiB)"
    return (
        max_model_len,
        num_pages,
        [
            ConfigLine("max_model_len", str(max_model_len), len_reason),
            ConfigLine("kv_tokens", size_text, cache_reason),
        ],
    )


def _either(asked: str, default: str) -> str:
    return default if asked == "auto" else asked


def _reason(config: EngineConfig, name: str) -> str:
    if name == "device":
        return "what this machine has"
    default = EngineConfig.__dataclass_fields__[name].default
    asked = getattr(config, name)
    if asked in (None, "auto"):
        return "chosen for this machine and model"
    return "default" if asked == default or asked == {} else "as given"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{op}={name}" for op, name in value.items()) or "best available"
    return str(value)
