"""The composition root: the one file that names the concrete class of every seam."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch

from leadline.engine.config import ResolvedConfig
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.errors import ConfigError
from leadline.engine.executor.local import LocalExecutor
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.make_scheduler import make_scheduler
from leadline.engine.memory_needs import needs_of
from leadline.engine.messages import Ready
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.host_experts import host_expert_layers
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.lockstep import InStep
from leadline.engine.parallel.make_balancer import balancer_of
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.planning.weight_bytes import WeightFormat
from leadline.engine.start_lines import (
    kernels_line,
    mtp_line,
    planned_memory,
    progress_bar,
    weights_line,
)
from leadline.engine.survey import ExpertLoad
from leadline.engine.worker.drafter import Drafter
from leadline.engine.worker.host_pages import HostPages
from leadline.engine.worker.model_runner import ModelRunner
from leadline.engine.worker.page_checksums import PageChecksums
from leadline.engine.worker.worker import Worker
from leadline.kernels.api import KernelSet
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.select import KernelError, Platform, reads_fp8, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.file_checksums import verify_files
from leadline.loader.load import open_weights
from leadline.loader.model_config import ModelConfig, read_model_config
from leadline.loader.sharding import is_routed_expert

OnStage = Callable[[str], None]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class LoadedModel:
    """A model with its kernels, before it has a cache.

    Attributes:
        has_mtp: the checkpoint has the multi-token prediction layer.
        held: how its weights are held.
        summary: (name, value) lines for the start-up table.
        rank: which of a unit's ranks this is.
        exchange: how its tokens get to experts on other ranks; None if all are here.
    """

    config: ModelConfig
    model: DeepseekModel
    kernels: KernelSet
    has_mtp: bool
    held: WeightFormat
    summary: list[tuple[str, str]]
    rank: RankContext = field(default_factory=RankContext)
    exchange: ExpertExchange | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that its tensors take."""
        return self.model.num_bytes

    def expert_load(self) -> list[ExpertLoad]:
        """See `DeepseekModel.expert_load`."""
        return self.model.expert_load()


def load_model(
    config: ResolvedConfig,
    on_stage: OnStage = lambda stage: None,
    *,
    dequantize: bool | None = None,
    rank: RankContext | None = None,
) -> LoadedModel:
    """Read a checkpoint and choose its kernels.

    Args:
        config: what to load and how to run it.
        on_stage: told what is being done, in a short phrase.
        dequantize: hold FP8 weights in `config.dtype`; None: unless the chosen kernels read FP8
            as fast.
        rank: of a unit; None for the only one.

    Raises:
        LoaderError: the checkpoint cannot be served; lists everything that is wrong with it.
        ConfigError: a kernel override cannot be honoured.
    """
    platform = Platform(device=config.device, batch_invariant=config.batch_invariant)
    try:
        kernels, choices = select_kernels(platform, config.kernels)
    except KernelError as error:
        raise ConfigError(str(error)) from error
    if dequantize is None:
        dequantize = not reads_fp8(choices)
    path = Path(config.model)
    model_config = read_model_config(path)
    rank = rank or RankContext()
    widens: bool | Callable[[str], bool] = dequantize
    hosted = host_expert_layers(config, kernels, model_config.n_routed_experts)
    if hosted is not None:
        widens = lambda name: dequantize and not is_routed_expert(name)  # noqa: E731
    checkpoint = Checkpoint.open(path)
    if config.verify_weights:
        verify_files(
            path,
            checkpoint.files,
            lambda *numbers: on_stage(f"checking weights: {progress_bar(*numbers)}"),
        )

    def show(done_bytes: int, total_bytes: int) -> None:
        on_stage(f"reading weights: {progress_bar(done_bytes, total_bytes)}")

    weights = open_weights(
        checkpoint,
        model_config,
        rank.shard_plan(model_config),
        dtype=_DTYPES[config.dtype],
        dequantize=widens,
        with_mtp=config.speculative_tokens > 0,
        mapped_experts=True,
        progress=show,
    )
    tree = assemble(weights, model_config, has_mtp=weights.has_mtp)
    exchange = rank.make_exchange(
        kernels, exact=config.batch_invariant, fp8_dispatch=config.fp8_dispatch
    )
    model = DeepseekModel(
        model_config,
        tree,
        kernels,
        rank.parallel,
        max_len=config.max_model_len,
        make_dispatcher=hosted.make_dispatcher
        if hosted
        else rank.dispatchers(exchange, model_config),
        make_experts=hosted.make_experts if hosted else None,
    )
    held = WeightFormat(
        dtype=config.dtype,
        keeps_fp8=not dequantize,
        keeps_expert_fp8=True if hosted else None,
    )
    weights.log_speed()
    summary = [
        ("architecture", model_config.architecture),
        ("weights", weights_line(weights, model.num_bytes, held, model_config)),
        ("mtp layer", mtp_line(config, model_config, has_mtp=weights.has_mtp)),
        ("kernels", kernels_line(choices)),
    ]
    return LoadedModel(model_config, model, kernels, weights.has_mtp, held, summary, rank, exchange)


def make_cache(config: ResolvedConfig, loaded: LoadedModel) -> LatentCache:
    """The page pool of all layers, the MTP layer included where there is one."""
    model = loaded.config
    num_layers = model.num_hidden_layers + int(loaded.has_mtp)
    layout = LatentLayout(model.kv_lora_rank, model.qk_rope_head_dim, config.kv_cache_dtype)
    return LatentCache(num_layers, config.num_pages, config.page_size, layout)


def make_drafter(config: ResolvedConfig, loaded: LoadedModel, memory: PagedMemory) -> Drafter:
    """The MTP layer as drafter; only for a model that has one."""
    return Drafter(
        loaded.model,
        memory,
        num_pages=config.num_pages,
        page_size=config.page_size,
        max_len=config.max_model_len,
        hidden_size=loaded.config.hidden_size,
        dtype=_DTYPES[config.dtype],
    )


def make_host_pages(
    config: ResolvedConfig,
    cache: LatentCache,
    drafter: Drafter | None,
    checksums: PageChecksums | None = None,
) -> HostPages | None:
    """The host tier's memory, if there is one."""
    if not config.num_host_pages:
        return None
    return HostPages(cache, config.num_host_pages, _page_hidden(drafter), checksums)


def _page_hidden(drafter: Drafter | None) -> torch.Tensor | None:
    return None if drafter is None else drafter.page_hidden_PD


def make_runner(config: ResolvedConfig, loaded: LoadedModel, grammars: GrammarStore) -> ModelRunner:
    """What computes steps, with pages that hold nothing."""
    cache = make_cache(config, loaded)
    memory = PagedMemory(cache, loaded.kernels, scale=softmax_scale(loaded.config))
    drafter = make_drafter(config, loaded, memory) if num_drafts_of(config, loaded) else None
    checksums = PageChecksums(cache, _page_hidden(drafter)) if config.verify_pages else None
    exchange = loaded.exchange
    return ModelRunner(
        loaded.model,
        memory,
        loaded.kernels,
        page_size=config.page_size,
        vocab_size=loaded.config.vocab_size,
        drafter=drafter,
        host_pages=make_host_pages(config, cache, drafter, checksums),
        checksums=checksums,
        grammars=grammars,
        logprobs_mode=config.logprobs_mode,
        lockstep=None if exchange is None else InStep(loaded.rank.parallel.dp, exchange),
        balancer=balancer_of(loaded.model, loaded.config, loaded.rank, config.expert_balance_steps),
    )


def num_drafts_of(config: ResolvedConfig, loaded: LoadedModel) -> int:
    """Most drafts a step; 0 without an MTP layer."""
    return config.speculative_tokens if loaded.has_mtp else 0


def memory_lines(
    config: ResolvedConfig, loaded: LoadedModel, runner: ModelRunner
) -> list[tuple[str, str]]:
    """What was loaded, and what all of it takes, for the start-up table."""
    pool = (
        f"{config.num_pages} pages of {config.page_size}: {config.num_pages * config.page_size} "
        f"tokens, {config.kv_cache_dtype}, {runner.num_cache_bytes / 2**20:.0f} MiB"
    )
    lines = [*loaded.summary, ("latent cache", pool)]
    if runner.num_hidden_bytes:
        lines.append(("drafter", f"{runner.num_hidden_bytes / 2**20:.1f} MiB of states"))
    needs = needs_of(config, loaded.config, held=loaded.held, has_mtp=loaded.has_mtp)
    cache_bytes = runner.num_cache_bytes + runner.num_hidden_bytes
    memory = planned_memory(config, needs, weight_bytes=loaded.num_bytes, cache_bytes=cache_bytes)
    lines.append(("memory", memory))
    if config.num_host_pages:
        tier = f"{config.num_host_pages} pages, {runner.num_host_bytes / 2**20:.0f} MiB"
        lines.append(("host tier", tier))
    return lines


def build_core(
    config_json: bytes,
    on_stage: OnStage,
    *,
    make_policy: Callable[[int], DraftPolicy] = DraftPolicy,
) -> tuple[EngineCore, Ready]:
    """The engine of one device.

    Args:
        config_json: a `ResolvedConfig` as JSON.
        on_stage: told what start-up is busy with.
        make_policy: makes the draft policy from the most drafts a step.

    Raises:
        LoaderError, ConfigError: as `load_model`.
    """
    config = msgspec.json.decode(config_json, type=ResolvedConfig)
    torch.set_num_threads(config.num_threads)
    loaded = load_model(config, on_stage)
    on_stage("allocating the latent cache")
    grammars = GrammarStore(Path(config.model))
    runner = make_runner(config, loaded, grammars)
    stages = deque([""], maxlen=1)  # of waking up; the executor's thread tells

    def make_runner_again(model: LoadedModel) -> ModelRunner:
        stages.append("allocating the latent cache")
        return make_runner(config, model, grammars)

    worker = Worker(loaded, runner, lambda: load_model(config, stages.append), make_runner_again)
    num_drafts = num_drafts_of(config, loaded)
    executor = LocalExecutor(worker, config.capacity(), grammars)
    scheduler, events = make_scheduler(
        config, make_policy(num_drafts), vocab_size=loaded.config.vocab_size
    )
    ready = Ready(
        max_model_len=config.max_model_len,
        num_pages=config.num_pages,
        page_size=config.page_size,
        summary=[
            *memory_lines(config, loaded, runner),
            ("speculation", f"up to {num_drafts} drafts a step" if num_drafts else "off"),
        ],
    )
    core = EngineCore(
        scheduler,
        executor,
        events=events,
        grammar_counts=grammars.counts,
        waking_stage=lambda: stages[0],
    )
    return core, ready
