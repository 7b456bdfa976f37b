"""Statistics of several lanes as those of one engine."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from leadline.engine.expert_balance.balance_counts import BalanceCounts
from leadline.engine.histogram import Histogram
from leadline.engine.messages import EngineStats, GrammarCounts
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.survey import EngineSurvey, ExpertLoad

_MEANS = {"page_usage", "host_cache_usage"}
_LARGEST = {"predicted_step_s", "sleep_level", "num_corrupted_in_a_row", "holds_requests"}
_ALL = {"is_paused"}


def merge_stats(parts: Sequence[EngineStats]) -> EngineStats:
    """Counters are added, shares of the pages are averaged."""
    values = {
        name: _merge(name, [getattr(part, name) for part in parts])
        for name in EngineStats.__struct_fields__
    }
    return EngineStats(**values)


def merge_surveys(parts: Sequence[EngineSurvey], expert_load: list[ExpertLoad]) -> EngineSurvey:
    """Pages one after the other; the expert load is that of the whole unit."""
    depths = [part.draft_depth for part in parts if part.draft_depth is not None]
    return EngineSurvey(
        page_size=parts[0].page_size,
        pages=b"".join(part.pages for part in parts),
        num_waiting_tokens=sum(part.num_waiting_tokens for part in parts),
        oldest_waiting_s=max(part.oldest_waiting_s for part in parts),
        draft_depth=max(depths, default=None),
        expert_load=expert_load,
    )


def _merge(name: str, values: list[Any]) -> Any:
    if isinstance(values[0], str):
        return values[0]
    if name in _MEANS:
        return sum(values) / len(values)
    if name in _LARGEST:
        return max(values)
    if name in _ALL:
        return all(values)
    first = values[0]
    if isinstance(first, Histogram):
        return _add_histograms(values)
    if isinstance(first, GrammarCounts):
        return merge_grammars(values)
    if isinstance(first, BalanceCounts):  # all lanes share the experts
        return max(values, key=lambda value: (value.num_windows, value.num_moved_bytes))
    if isinstance(first, DispatchCounts):
        total = DispatchCounts()
        for value in values:
            total.add(value)
        return total
    if isinstance(first, list):
        return _add_lists(values)
    if isinstance(first, dict):
        return dict(sum((Counter(value) for value in values), Counter()))
    return sum(values)


def merge_grammars(parts: Sequence[GrammarCounts]) -> GrammarCounts:
    """Grammars asked for in all lanes."""
    return GrammarCounts(
        num_queries=sum(part.num_queries for part in parts),
        num_hits=sum(part.num_hits for part in parts),
        times=_add_histograms([part.times for part in parts]),
    )


def _add_histograms(parts: Sequence[Histogram]) -> Histogram:
    counts = _add_lists([part.counts for part in parts])
    return Histogram(counts, sum(part.total for part in parts))


def _add_lists(parts: Sequence[list[int]]) -> list[int]:
    width = max(map(len, parts))
    padded = [[*part, *[0] * (width - len(part))] for part in parts]
    return [sum(column) for column in zip(*padded, strict=True)]
