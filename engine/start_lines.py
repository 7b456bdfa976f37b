"""What start-up says of what it has loaded, line by line."""

import logging
from collections import Counter
from typing import TYPE_CHECKING

from leadline.engine.memory_needs import memory_line, memory_parts
from leadline.engine.planning.memory import MemoryNeeds, MemoryPart
from leadline.engine.planning.weight_bytes import WeightFormat
from leadline.kernels.select import Choice
from leadline.loader.load import StoredWeights
from leadline.loader.model_config import ModelConfig

if TYPE_CHECKING:
    from leadline.engine.config import ResolvedConfig

logger = logging.getLogger(__name__)

_BAR_WIDTH = 30  # characters
_UNPLANNED_SHARE = 0.01  # of a size; less is not worth a word


def progress_bar(done_bytes: int, total_bytes: int) -> str:
    """A bar in plain characters, and the numbers, for example `|###-----| 4.5 of 12.0 MB`."""
    filled = _BAR_WIDTH * done_bytes // max(total_bytes, 1)
    bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
    return f"|{bar}| {done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB"


def weights_line(
    weights: StoredWeights, held_bytes: int, held_as: WeightFormat, model: ModelConfig
) -> str:
    """What was read, how fast, and what it takes in memory."""
    speed = weights.num_bytes / 1e9 / max(weights.seconds, 1e-9)
    read = f"{weights.num_bytes / 1e6:.1f} MB in {weights.seconds:.2f} s ({speed:.2f} GB/s)"
    held = f"{held_bytes / 2**20:.0f} MiB in {held_as.dtype}"
    if model.fp8 is not None and held_as.keeps_fp8:
        held += ", FP8 as stored"
    return f"{read}, {held}"


def mtp_line(config: "ResolvedConfig", model: ModelConfig, *, has_mtp: bool) -> str:
    """Whether there is an MTP layer."""
    if has_mtp:
        return "loaded"
    if model.num_nextn_predict_layers and not config.speculative_tokens:
        return "left out: speculation is off"
    if model.num_nextn_predict_layers:
        return "announced by config.json, absent from the checkpoint: served without speculation"
    return "none"


def kernels_line(choices: list[Choice]) -> str:
    """Each implementation, and how many operations it computes."""
    counts = Counter(choice.chosen for choice in choices)
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def planned_memory(
    config: "ResolvedConfig", needs: MemoryNeeds, *, weight_bytes: int, cache_bytes: int
) -> str:
    """The memory plan; what is held beyond it is logged.

    Args:
        config: of the engine.
        needs: what was planned.
        weight_bytes: what the weights take.
        cache_bytes: what the pages take.
    """
    parts = memory_parts(config, needs)
    for name, held, planned in (
        ("weights", weight_bytes, _sum([*needs.weights(), *needs.host()])),
        ("cache", cache_bytes, _sum(needs.pages(config.num_pages, config.page_size))),
    ):
        if held > planned * (1 + _UNPLANNED_SHARE):
            logger.warning("the %s take %d bytes, %d were planned", name, held, planned)
    return memory_line(parts)


def _sum(parts: list[MemoryPart]) -> int:
    return sum(part.num_bytes for part in parts)
