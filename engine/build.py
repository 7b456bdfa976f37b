"""The composition root: the one file that names the concrete class of every seam."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
from leadline.engine.messages import Ready
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.survey import ExpertLoad
from leadline.engine.worker.drafter import Drafter
from leadline.engine.worker.host_pages import HostPages
from leadline.engine.worker.model_runner import ModelRunner
from leadline.engine.worker.page_checksums import PageChecksums
from leadline.engine.worker.worker import Worker
from leadline.kernels.api import KernelSet
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.select import Choice, KernelError, Platform, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.file_checksums import verify_files
from leadline.loader.load import open_weights
from leadline.loader.model_config import ModelConfig, read_model_config

logger = logging.getLogger(__name__)

OnStage = Callable[[str], None]
_BAR_WIDTH = 30  # characters
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(slots=True)
class LoadedModel:
    """A model with its kernels, before it has a cache.

    Attributes:
        has_mtp: the checkpoint has the multi-token prediction layer.
        summary: (name, value) lines for the start-up table.
    """

    config: ModelConfig
    model: DeepseekModel
    kernels: KernelSet
    has_mtp: bool
    summary: list[tuple[str, str]]

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
) -> LoadedModel:
    """Read a checkpoint and choose its kernels.

    Args:
        config: what to load and how to run it.
        on_stage: told what is being done, in a short phrase.
        dequantize: hold FP8 weights in `config.dtype`; None: unless the chosen kernels read FP8
            as fast.

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
        dequantize = not _reads_fp8(choices)
    path = Path(config.model)
    model_config = read_model_config(path)
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
        dtype=_DTYPES[config.dtype],
        dequantize=dequantize,
        with_mtp=config.speculative_tokens > 0,
        progress=show,
    )
    tree = assemble(weights, model_config, has_mtp=weights.has_mtp)
    model = DeepseekModel(
        model_config, tree, kernels, ParallelContext(), max_len=config.max_model_len
    )
    speed = weights.num_bytes / 1e9 / max(weights.seconds, 1e-9)
    read = f"{weights.num_bytes / 1e6:.1f} MB in {weights.seconds:.2f} s ({speed:.2f} GB/s)"
    weights.log_speed()
    held = f"{model.num_bytes / 2**20:.0f} MiB in {config.dtype}"
    if model_config.fp8 is not None and not dequantize:
        held += ", FP8 as stored"
    summary = [
        ("architecture", model_config.architecture),
        ("weights", f"{read}, {held}"),
        ("mtp layer", _mtp_line(config, model_config, has_mtp=weights.has_mtp)),
        ("kernels", _kernels_line(choices)),
    ]
    return LoadedModel(model_config, model, kernels, weights.has_mtp, summary)


def _reads_fp8(choices: list[Choice]) -> bool:
    """Whether FP8 weights are multiplied as they are stored, not widened as a whole each time."""
    products = [c for c in choices if c.operation in ("linear_fp8", "grouped_mlp")]
    return all(choice.chosen == "native" for choice in products)


def _kernels_line(choices: list[Choice]) -> str:
    """Each implementation, and how many operations it computes."""
    counts = Counter(choice.chosen for choice in choices)
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def progress_bar(done_bytes: int, total_bytes: int) -> str:
    """A bar in plain characters, and the numbers, for example `|###-----| 4.5 of 12.0 MB`."""
    filled = _BAR_WIDTH * done_bytes // max(total_bytes, 1)
    bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
    return f"|{bar}| {done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB"


def _mtp_line(config: ResolvedConfig, model: ModelConfig, *, has_mtp: bool) -> str:
    if has_mtp:
        return "loaded"
    if model.num_nextn_predict_layers and not config.speculative_tokens:
        return "left out: speculation is off"
    if model.num_nextn_predict_layers:
        return "announced by config.json, absent from the checkpoint: served without speculation"
    return "none"


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
    drafter = make_drafter(config, loaded, memory) if _num_drafts(config, loaded) else None
    checksums = PageChecksums(cache, _page_hidden(drafter)) if config.verify_pages else None
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
    )


def _num_drafts(config: ResolvedConfig, loaded: LoadedModel) -> int:
    return config.speculative_tokens if loaded.has_mtp else 0


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
    worker = Worker(
        loaded,
        runner,
        lambda: load_model(config),
        lambda model: make_runner(config, model, grammars),
    )
    num_drafts = _num_drafts(config, loaded)
    executor = LocalExecutor(worker, config.capacity(), grammars)
    scheduler, events = make_scheduler(
        config, make_policy(num_drafts), vocab_size=loaded.config.vocab_size
    )
    num_tokens = config.num_pages * config.page_size
    pool = (
        f"{config.num_pages} pages of {config.page_size}: {num_tokens} tokens, "
        f"{config.kv_cache_dtype}, {runner.num_cache_bytes / 2**20:.0f} MiB"
    )
    summary = [*loaded.summary, ("latent cache", pool)]
    if num_drafts:
        summary.append(("drafter", f"{runner.num_hidden_bytes / 2**20:.1f} MiB of states"))
    if config.num_host_pages:
        tier = f"{config.num_host_pages} pages, {runner.num_host_bytes / 2**20:.0f} MiB"
        summary.append(("host tier", tier))
    ready = Ready(
        max_model_len=config.max_model_len,
        num_pages=config.num_pages,
        page_size=config.page_size,
        summary=[
            *summary,
            ("speculation", f"up to {num_drafts} drafts a step" if num_drafts else "off"),
        ],
    )
    return EngineCore(scheduler, executor, events=events, grammar_counts=grammars.counts), ready
