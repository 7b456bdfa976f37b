"""What a server's config takes of memory; the same at its start and in a plan."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leadline.engine.planning.layout import Layout
from leadline.engine.planning.memory import MemoryNeeds, MemoryPart
from leadline.engine.planning.weight_bytes import WeightFormat
from leadline.kernels.native.presence import library_file
from leadline.loader.model_config import ModelConfig

if TYPE_CHECKING:
    from leadline.engine.config import ResolvedConfig

_MIB = 2**20
_FP8_PRODUCTS = ("linear_fp8", "grouped_mlp")


def keeps_fp8(device: str, kernels: Mapping[str, str]) -> bool:
    """Whether FP8 weights will be multiplied as they are stored, as far as that can be foreseen.

    Args:
        device: `cpu` or `cuda`.
        kernels: operation -> implementation, where the user chose one.
    """
    if device != "cpu":
        return True
    chosen = (kernels.get(operation, "native") for operation in _FP8_PRODUCTS)
    return library_file() is not None and all(name == "native" for name in chosen)


def needs_of(
    config: "ResolvedConfig",
    model: ModelConfig,
    *,
    held: WeightFormat | None = None,
    has_mtp: bool = True,
) -> MemoryNeeds:
    """What the engine of a config holds.

    Args:
        config: its `num_pages` is not looked at.
        model: the checkpoint's config.
        held: how weights are held; None for what is foreseen.
        has_mtp: the checkpoint has the MTP layer that its config announces; without speculation
            it is not loaded.
    """
    if held is None:
        fp8 = keeps_fp8(config.device, config.kernels)
        held = WeightFormat(dtype=config.dtype, keeps_fp8=fp8)
    has_mtp = has_mtp and config.speculative_tokens > 0 and model.num_nextn_predict_layers > 0
    return MemoryNeeds(
        model=model,
        layout=Layout(
            tensor_parallel_size=config.tensor_parallel_size,
            data_parallel_size=config.data_parallel_size,
            expert_parallel=config.enable_expert_parallel,
            num_redundant_experts=config.num_redundant_experts,
        ),
        held=held,
        device=config.device,
        kv_cache_dtype=config.kv_cache_dtype,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        max_model_len=config.max_model_len,
        num_drafts=config.speculative_tokens if has_mtp else 0,
        has_mtp=has_mtp,
        expert_gpu_count=config.expert_gpu_count if config.expert_device == "cpu" else None,
    )


def memory_parts(config: "ResolvedConfig", needs: MemoryNeeds) -> list[MemoryPart]:
    """Everything that the engine holds, part by part; the host tier is reported by itself."""
    pages = needs.pages(config.num_pages, config.page_size)
    return [*needs.weights(), *needs.host(), *pages, *needs.other()]


def memory_line(parts: list[MemoryPart]) -> str:
    """The parts on one line, in MiB; what is below 0.1 is in the sum alone."""
    total = sum(part.num_bytes for part in parts)
    shown = [
        f"{part.name} {'about ' if part.is_estimate else ''}{part.num_bytes / _MIB:.1f}"
        for part in parts
        if part.num_bytes >= _MIB / 10
    ]
    return f"{total / _MIB:.0f} MiB: {', '.join(shown)}"
