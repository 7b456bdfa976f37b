"""What drafts did in a run: told by the answers themselves, or by the server's metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from leadline.server.bench.http_client import HttpClient, HttpError, is_ok
from leadline.server.bench.record import DraftCounts, Record

_PREFIXES = ("leadline:", "vllm:")
_COUNTERS = {
    "spec_decode_num_drafts": "num_drafts",
    "spec_decode_num_draft_tokens": "num_draft_tokens",
    "spec_decode_num_accepted_tokens": "num_accepted_tokens",
}
_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos"


@dataclass(frozen=True, slots=True)
class DraftMeasures:
    """Draft acceptance of a run.

    Attributes:
        source: "answers", or "metrics", which count everybody's requests.
    """

    counts: DraftCounts
    source: str

    @property
    def acceptance_percent(self) -> float:
        """Accepted of drafted tokens."""
        return 100 * self.counts.num_accepted_tokens / self.counts.num_draft_tokens

    @property
    def acceptance_length(self) -> float:
        """Tokens that a step with drafts yields."""
        return 1 + self.counts.num_accepted_tokens / self.counts.num_drafts

    @property
    def acceptance_by_position(self) -> list[float]:
        """Share of steps with drafts in which each position was accepted."""
        return [count / self.counts.num_drafts for count in self.counts.accepted_per_position]


def measure_drafts(
    records: Sequence[Record], before: DraftCounts | None, after: DraftCounts | None
) -> DraftMeasures | None:
    """From the answers if any has told of drafts, else from the metrics; None without drafts.

    Args:
        records: of all requests.
        before: the server's counts at the start, None if it has none.
        after: the same at the end.
    """
    told = [record.drafts for record in records if record.drafts is not None]
    if told:
        measures = DraftMeasures(_added(told), "answers")
    elif before is not None and after is not None:
        measures = DraftMeasures(_added([after, _negated(before)]), "metrics")
    else:
        return None
    counts = measures.counts
    return measures if counts.num_drafts > 0 and counts.num_draft_tokens > 0 else None


async def read_counts(http: HttpClient) -> DraftCounts | None:
    """What the server's `/metrics` say of drafts; None if they say nothing."""
    try:
        status, body = await http.get("/metrics")
    except HttpError:
        return None
    return parse_counts(body.decode(errors="replace")) if is_ok(status) else None


def parse_counts(text: str) -> DraftCounts | None:
    """Counts in the Prometheus text format, of all engines together; None if there is none."""
    from prometheus_client.parser import text_string_to_metric_families

    by_name: dict[str, list[Any]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                by_name.setdefault(sample.name, []).append(sample)
    except ValueError:
        return None
    for prefix in _PREFIXES:
        found = {name: by_name.get(f"{prefix}{name}_total", []) for name in _COUNTERS}
        if not any(found.values()):
            continue
        counts = DraftCounts()
        for name, samples in found.items():
            setattr(counts, _COUNTERS[name], int(sum(sample.value for sample in samples)))
        counts.accepted_per_position = _positions(by_name.get(f"{prefix}{_PER_POSITION}_total", []))
        return counts
    return None


def _positions(samples: Sequence[Any]) -> list[int]:
    by_position: dict[int, int] = {}
    for sample in samples:
        position = int(sample.labels.get("position", 0))
        by_position[position] = by_position.get(position, 0) + int(sample.value)
    return [by_position.get(position, 0) for position in range(max(by_position, default=-1) + 1)]


def _added(parts: Sequence[DraftCounts]) -> DraftCounts:
    columns = zip_longest(*(part.accepted_per_position for part in parts), fillvalue=0)
    return DraftCounts(
        num_drafts=sum(part.num_drafts for part in parts),
        num_draft_tokens=sum(part.num_draft_tokens for part in parts),
        num_accepted_tokens=sum(part.num_accepted_tokens for part in parts),
        accepted_per_position=[sum(column) for column in columns],
    )


def _negated(counts: DraftCounts) -> DraftCounts:
    return DraftCounts(
        num_drafts=-counts.num_drafts,
        num_draft_tokens=-counts.num_draft_tokens,
        num_accepted_tokens=-counts.num_accepted_tokens,
        accepted_per_position=[-count for count in counts.accepted_per_position],
    )
