"""A log line about the engine's work, at intervals in which there was some."""

import asyncio
import logging
import time
from collections.abc import Callable

from leadline.engine.messages import EngineStats

logger = logging.getLogger(__name__)

INTERVAL_S = 10.0
_COUNTERS = (
    *("prompt_tokens", "generation_tokens", "num_preemptions", "num_drafts", "num_draft_tokens"),
    *("prefix_cache_queries", "prefix_cache_hits"),
    *("host_cache_queries", "host_cache_hits"),
)


def log_lines(before: EngineStats, after: EngineStats, duration_s: float) -> list[str]:
    """What happened between two moments: nothing, a line, or two where drafts were verified.

    Args:
        before: the engine's counters at the beginning.
        after: the same, and the gauges, at the end.
        duration_s: seconds between them.
    """
    if _is_another_life(before, after):
        before = EngineStats()
    num_prompt = after.prompt_tokens - before.prompt_tokens
    num_generated = after.generation_tokens - before.generation_tokens
    if not (num_prompt or num_generated or after.num_running or after.num_waiting):
        return []
    num_queries = after.prefix_cache_queries - before.prefix_cache_queries
    num_hits = after.prefix_cache_hits - before.prefix_cache_hits
    line = (
        f"Avg prompt throughput: {num_prompt / duration_s:.1f} tokens/s, "
        f"Avg generation throughput: {num_generated / duration_s:.1f} tokens/s, "
        f"Running: {after.num_running} reqs, Waiting: {after.num_waiting} reqs, "
        f"KV cache usage: {after.page_usage:.1%}, "
        f"Prefix cache hit rate: {num_hits / num_queries if num_queries else 0.0:.1%}"
    )
    if num_host_queries := after.host_cache_queries - before.host_cache_queries:
        num_host_hits = after.host_cache_hits - before.host_cache_hits
        line += f", External prefix cache hit rate: {num_host_hits / num_host_queries:.1%}"
    if num_preemptions := after.num_preemptions - before.num_preemptions:
        line += f", Preempted: {num_preemptions} reqs"
    lines = [line]
    if after.num_drafts > before.num_drafts and after.num_draft_tokens > before.num_draft_tokens:
        lines.append(_speculation_line(before, after, duration_s))
    return lines


def _is_another_life(before: EngineStats, after: EngineStats) -> bool:
    """Whether the engine has been started anew in between: its counters began at zero again."""
    earlier, later = before.num_accepted_per_pos, after.num_accepted_per_pos
    return (
        any(getattr(after, name) < getattr(before, name) for name in _COUNTERS)
        or len(later) < len(earlier)
        or any(now < then for now, then in zip(later, earlier, strict=False))
    )


def _speculation_line(before: EngineStats, after: EngineStats, duration_s: float) -> str:
    """VLLM's line: people paste it, and programs read it."""
    num_drafts = after.num_drafts - before.num_drafts
    num_drafted = after.num_draft_tokens - before.num_draft_tokens
    num_accepted = after.num_accepted_tokens - before.num_accepted_tokens
    earlier = before.num_accepted_per_pos
    earlier = earlier + [0] * (len(after.num_accepted_per_pos) - len(earlier))
    rates = ", ".join(
        f"{(now - then) / num_drafts:.3f}"
        for now, then in zip(after.num_accepted_per_pos, earlier, strict=True)
    )
    return (
        f"SpecDecoding metrics: Mean acceptance length: {1 + num_accepted / num_drafts:.2f}, "
        f"Accepted throughput: {num_accepted / duration_s:.2f} tokens/s, "
        f"Drafted throughput: {num_drafted / duration_s:.2f} tokens/s, "
        f"Accepted: {num_accepted} tokens, Drafted: {num_drafted} tokens, "
        f"Per-position acceptance rate: {rates}, "
        f"Avg Draft acceptance rate: {num_accepted / num_drafted:.1%}"
    )


async def log_stats(stats: Callable[[], EngineStats], interval_s: float = INTERVAL_S) -> None:
    """Log until cancelled; `stats`: the engine's as of now, a new object each time."""
    before, before_s = stats(), time.monotonic()
    while True:
        await asyncio.sleep(interval_s)
        after, after_s = stats(), time.monotonic()
        for line in log_lines(before, after, after_s - before_s):
            logger.info("%s", line)
        before, before_s = after, after_s
