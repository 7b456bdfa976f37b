"""The ranges of the engine's settings, and which exclude each other."""

from typing import TYPE_CHECKING

from leadline.engine.errors import ConfigError
from leadline.engine.kv_events_config import parse_kv_events_config
from leadline.engine.request import MAX_SEED

if TYPE_CHECKING:
    from leadline.engine.config import EngineConfig

MAX_PAGE_SIZE = 1024
MAX_SPECULATIVE_TOKENS = 8
MIN_TARGET_MS = 0.1
MAX_PREFILL_INTERVAL = 64


def check_ranges(config: "EngineConfig") -> None:
    """Refuse values that no model and no machine could honour.

    Raises:
        ConfigError: all of them in one.
    """
    problems = []
    for name, low, high in (
        ("page_size", 1, MAX_PAGE_SIZE),
        ("max_model_len", 2, None),
        ("kv_tokens", config.page_size, None),
        ("memory_headroom_gib", 0, None),
        ("max_num_seqs", 1, None),
        ("max_num_batched_tokens", config.max_num_seqs, None),
        ("num_threads", 1, None),
        ("prefill_schedule_interval", 1, MAX_PREFILL_INTERVAL),
        ("speculative_tokens", 0, MAX_SPECULATIVE_TOKENS),
        ("seed", 0, MAX_SEED),
        ("host_kv_tokens", 0, None),
        ("expert_gpu_count", 0, None),
        ("max_queued_requests", 0, None),
        ("max_queued_tokens", 1, None),
        ("target_itl_ms", MIN_TARGET_MS, None),
        ("target_ttft_ms", MIN_TARGET_MS, None),
    ):
        value = getattr(config, name)
        if value is not None and (value < low or (high is not None and value > high)):
            allowed = f"{low} to {high}" if high is not None else f"at least {low}"
            problems.append(f"{name} is {value}; allowed: {allowed}")
    for name in (
        "kv_cache_dtype",
        "dtype",
        "logprobs_mode",
        "expert_device",
        "data_parallel_routing",
    ):
        choices = config.__dataclass_fields__[name].metadata["choices"]
        if getattr(config, name) not in choices:
            problems.append(f"{name} is {getattr(config, name)!r}; allowed: {', '.join(choices)}")
    if 0 < config.host_kv_tokens < config.page_size:
        problems.append(
            f"host_kv_tokens is {config.host_kv_tokens}; allowed: 0, or at least a page of "
            f"{config.page_size}"
        )
    if config.kv_tokens is not None and config.memory_headroom_gib is not None:
        problems.append("memory_headroom_gib has no effect beside kv_tokens; leave one out")
    if not config.prefix_caching:
        problems += [
            f"{name} has no effect with prefix_caching off; leave one out"
            for name in ("host_kv_tokens", "kv_events_config", "verify_pages")
            if getattr(config, name)
        ]
    if not all(name.strip() for name in config.served_model_name):
        problems.append("served_model_name has an empty name; give each name as clients send it")
    if len(set(config.served_model_name)) < len(config.served_model_name):
        problems.append("served_model_name has a name twice; give each once")
    if config.kv_events_config is not None:
        parse_kv_events_config(config.kv_events_config)
    if problems:
        raise ConfigError("; ".join(problems))
