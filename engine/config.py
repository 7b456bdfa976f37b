"""What the user asked for, and what the engine runs with: two types, so that no "auto" is left."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from leadline.engine.cache_size import settle_cache_size
from leadline.engine.config_lines import ConfigLine, config_lines
from leadline.engine.config_ranges import MAX_PAGE_SIZE, MAX_SPECULATIVE_TOKENS, check_ranges
from leadline.engine.executor.base import Capacity
from leadline.engine.expert_balance.settle_balance import settle_balance
from leadline.engine.expert_device import check_expert_device
from leadline.engine.memory_needs import needs_of
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.parallel.options import ParallelOptions, option
from leadline.engine.parallel.settle_layout import settle_layout
from leadline.engine.planning.memory import GIB
from leadline.engine.platform_facts import PlatformFacts
from leadline.engine.settle_num_drafts import DEFAULT_SPECULATIVE_TOKENS, settle_num_drafts
from leadline.loader.model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig(ParallelOptions):
    """The engine as the user asked for it; None and "auto" leave the choice to `resolve`.

    Each field's metadata holds `help` (a phrase for people) and `choices` (or None).
    """

    model: str = option(
        "leadline-demo", "directory, Hugging Face name (org/name), or the built-in leadline-demo"
    )
    served_model_name: tuple[str, ...] = option(
        (), "name in the API; may be repeated (default: MODEL)"
    )
    max_model_len: int | None = option(
        None, "most tokens of a request, prompt and output (default: the model's own length)"
    )
    page_size: int = option(64, f"tokens a cache page, 1 to {MAX_PAGE_SIZE}")
    kv_cache_dtype: str = option(
        "auto", "number format of cached latents", choices=("auto", "float32", "bfloat16", "fp8")
    )
    kv_tokens: int | None = option(
        None, "tokens that the cache holds (default: as many as memory and requests call for)"
    )
    memory_headroom_gib: float | None = option(
        None,
        "memory that is left free where kv_tokens is not given (default: 0.5 on a CPU, with at "
        "most 4 for the cache; 2 on a GPU)",
    )
    host_kv_tokens: int = option(
        0, "tokens of evicted cache pages that are kept in host memory; 0 for none"
    )
    kv_events_config: str | None = option(
        None, "publish cached pages to routers on ZeroMQ, as JSON with vLLM's fields"
    )
    max_num_seqs: int = option(64, "most requests in one step")
    max_queued_requests: int | None = option(
        None, "most requests that wait for a place in the step; more get 429 (default: no limit)"
    )
    max_queued_tokens: int | None = option(
        None, "most prompt tokens that wait; more get 429 (default: no limit)"
    )
    target_itl_ms: float | None = option(
        None, "step time to keep for running requests while prompts stream in (default: none)"
    )
    target_ttft_ms: float | None = option(
        None,
        "time to the first token; prompts get no more of a step than that takes (default: none)",
    )
    max_num_batched_tokens: int | None = option(
        None, "most tokens in one step (default: 512 on a CPU, 8192 on a GPU)"
    )
    prefix_caching: bool = option(True, "reuse the cached pages of equal prompt beginnings")
    verify_weights: bool = option(
        False,
        "check the SHA-256 of weight files by SHA256SUMS or their names in the hub's cache",
    )
    verify_pages: bool = option(
        False, "keep a checksum of each full cache page, and check it before the page is reused"
    )
    speculative_tokens: int | None = option(
        None,
        f"most MTP drafts a step, 0 to {MAX_SPECULATIVE_TOKENS}; 0 is off "
        f"(default: {DEFAULT_SPECULATIVE_TOKENS} if the model has an MTP layer)",
    )
    logprobs_mode: str = option(
        "raw",
        "log-probabilities of the model's logits, or of those that are sampled from",
        choices=("raw", "processed"),
    )
    seed: int | None = option(None, "for requests that give none (default: drawn at start)")
    num_threads: int | None = option(None, "CPU threads of the model (default: one a core)")
    dtype: str = option(
        "auto", "number format of activations", choices=("auto", "float32", "bfloat16")
    )
    kernels: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "implementation of an operation, as operation=name", "choices": None},
    )
    expert_device: str = option(
        "auto",
        "cpu: routed experts stay in host memory and are computed there",
        choices=("auto", "cpu"),
    )
    expert_gpu_count: int = option(
        0, "with --expert-device cpu: routed experts of each layer that the GPU has, the busiest"
    )
    batch_invariant: bool | None = option(
        None, "same bits for a request in every batch (default: on for a CPU, off for a GPU)"
    )


class ResolvedConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The engine as it runs; crosses to the engine process as JSON.

    Attributes:
        model: directory of the checkpoint.
        max_model_len: most tokens of a request.
        served_model_name: the main one; `other_model_names` stand for it too.
        num_pages: pages in the cache.
        kernels: operation -> implementation, where the user chose one.
        speculative_tokens: most MTP drafts a step; 0 for none.
        num_host_pages: evicted pages that the host tier holds.
        kv_events_config: as given, JSON; None for no events.
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
    speculative_tokens: int = 0
    logprobs_mode: str = "raw"
    num_host_pages: int = 0
    kv_events_config: str | None = None
    verify_weights: bool = False
    verify_pages: bool = False
    max_queued_requests: int | None = None
    max_queued_tokens: int | None = None
    target_itl_ms: float | None = None
    target_ttft_ms: float | None = None
    expert_device: str = "auto"
    expert_gpu_count: int = 0
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    enable_expert_parallel: bool = False
    fp8_dispatch: bool = False
    prefill_schedule_interval: int = 1
    nnodes: int = 1
    node_rank: int = 0
    head: str = ""
    node_interface: str = ""
    unit_key: str = ""
    num_redundant_experts: int = 0
    expert_balance_steps: int = 0
    data_parallel_routing: str = "prefix"
    other_model_names: tuple[str, ...] = ()

    @property
    def builder(self) -> str:
        """The function that makes the engine, see `process.Builder`."""
        if self.layout.num_ranks == 1:
            return "leadline.engine.build:build_core"
        return "leadline.engine.unit.build_unit:build_unit"

    @property
    def layout(self) -> ParallelLayout:
        """The ranks of the unit."""
        return ParallelLayout(
            tp_size=self.tensor_parallel_size,
            dp_size=self.data_parallel_size,
            expert_parallel=self.enable_expert_parallel,
        )

    def capacity(self) -> Capacity:
        """The sizes that the scheduler plans within."""
        return Capacity(
            num_pages=self.num_pages,
            page_size=self.page_size,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            num_host_pages=self.num_host_pages,
        )


def resolve(
    config: EngineConfig, model: ModelConfig, facts: PlatformFacts, *, model_path: str
) -> tuple[ResolvedConfig, list[ConfigLine]]:
    """Settle every open choice for a model on a machine; tell each value with its reason.

    Args:
        config: what the user asked for.
        model: the checkpoint's own config.
        facts: the machine, before the weights are loaded.
        model_path: the checkpoint's directory.

    Raises:
        ConfigError: a value out of range, or one that this model or machine cannot honour.
    """
    check_ranges(config)
    is_cpu = facts.device == "cpu"
    dtype = {"auto": "float32" if is_cpu else "bfloat16"}.get(config.dtype, config.dtype)
    kv_cache_dtype = {"auto": dtype}.get(config.kv_cache_dtype, config.kv_cache_dtype)
    layout, fp8_dispatch, layout_lines = settle_layout(config, model, is_cpu=is_cpu)
    balance_steps, balance_lines = settle_balance(config, model.n_routed_experts, layout)
    facts = facts.share(layout.num_ranks // config.nnodes)
    default_batched = max(512 if is_cpu else 8192, config.max_num_seqs)
    names = config.served_model_name or (config.model,)
    unsettled = ResolvedConfig(
        model=model_path,
        served_model_name=names[0],
        other_model_names=names[1:],
        device=facts.device,
        max_model_len=config.max_model_len or model.max_position_embeddings,
        page_size=config.page_size,
        num_pages=0,
        kv_cache_dtype=kv_cache_dtype,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens or default_batched,
        prefix_caching=config.prefix_caching,
        speculative_tokens=settle_num_drafts(config.speculative_tokens, model),
        seed=secrets.randbits(64) if config.seed is None else config.seed,
        num_threads=config.num_threads or facts.num_cores,
        dtype=dtype,
        kernels=dict(config.kernels),
        batch_invariant=is_cpu if config.batch_invariant is None else config.batch_invariant,
        logprobs_mode=config.logprobs_mode,
        num_host_pages=config.host_kv_tokens // config.page_size,
        kv_events_config=config.kv_events_config,
        verify_weights=config.verify_weights,
        verify_pages=config.verify_pages,
        max_queued_requests=config.max_queued_requests,
        max_queued_tokens=config.max_queued_tokens,
        target_itl_ms=config.target_itl_ms,
        target_ttft_ms=config.target_ttft_ms,
        expert_device=config.expert_device,
        expert_gpu_count=config.expert_gpu_count,
        tensor_parallel_size=layout.tp_size,
        data_parallel_size=layout.dp_size,
        enable_expert_parallel=layout.expert_parallel,
        fp8_dispatch=fp8_dispatch,
        num_redundant_experts=config.num_redundant_experts,
        expert_balance_steps=balance_steps,
        data_parallel_routing=config.data_parallel_routing,
        prefill_schedule_interval=config.prefill_schedule_interval,
        nnodes=config.nnodes,
        node_rank=config.node_rank,
        head=config.head or "",
        node_interface=config.node_interface or "",
        unit_key=config.unit_key or "",
    )
    check_expert_device(config, model, device=facts.device, num_ranks=layout.num_ranks)
    needs = needs_of(unsettled, model)
    headroom = config.memory_headroom_gib
    size = settle_cache_size(
        needs=needs,
        available_bytes=facts.available_bytes,
        page_size=config.page_size,
        max_model_len=config.max_model_len,
        kv_tokens=config.kv_tokens,
        headroom_bytes=None if headroom is None else int(headroom * GIB),
    )
    resolved = msgspec.structs.replace(
        unsettled, max_model_len=size.max_model_len, num_pages=size.num_pages
    )
    num_tokens = size.num_pages * config.page_size
    cache_text = f"{num_tokens} ({num_tokens * needs.token_bytes / 2**20:.0f} MiB)"
    reason = size.model_len_reason or "as given"
    return resolved, [
        ConfigLine("max_model_len", str(size.max_model_len), reason),
        ConfigLine("kv_tokens", cache_text, size.cache_reason),
        *(layout_lines + balance_lines),
        *config_lines(config, resolved),
    ]
