"""One run, from beginning to end, and what is known of it afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from leadline.server.bench.drafts import DraftMeasures
from leadline.server.bench.measures import Measures, Spread, measure, values_s
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.record import Record

_QUEUE_METRIC, _QUEUED_E2EL_METRIC = "client_queue_time", "e2el_including_client_queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was done, and what was seen.

    Attributes:
        began_at: local time.
        notes: what a reader of the figures has to know.
    """

    options: ServeOptions
    model: str
    began_at: datetime
    records: Sequence[Record]
    measures: Measures
    drafts: DraftMeasures | None
    notes: tuple[str, ...] = ()

    def spreads(self) -> list[tuple[str, Spread]]:
        """Of each metric that was asked for, applies to the run, and has any value."""
        options = self.options
        names = [name for name in options.percentile_metrics if _applies(name, options)]
        values = [(name, values_s(self.records, name)) for name in names]
        percentiles = options.metric_percentiles
        return [(name, Spread.of(found, percentiles)) for name, found in values if found]


def _applies(metric: str, options: ServeOptions) -> bool:
    if metric == _QUEUE_METRIC:
        return options.max_concurrency is not None
    if metric == _QUEUED_E2EL_METRIC:
        return options.max_concurrency is not None and options.request_rate < float("inf")
    return True


def make_run(
    options: ServeOptions,
    model: str,
    began_at: datetime,
    records: Sequence[Record],
    duration_s: float,
    drafts: DraftMeasures | None,
    num_tokens_asked: int | None,
) -> Run:
    """The run, with its figures.

    Args:
        options: as they were checked.
        model: the name that was asked for.
        began_at: local time.
        records: of all requests.
        duration_s: from the first request to the last answer.
        drafts: see `measure_drafts`.
        num_tokens_asked: prompt tokens of the successful requests' samples, None if unknown.
    """
    measures = measure(records, duration_s, options.goodput)
    notes = []
    if measures.num_without_usage:
        notes.append(
            f"{measures.num_without_usage} answers told no usage: their chunks are counted, and "
            "prompts as they were asked for"
        )
    num_sent = measures.num_input_tokens
    if num_tokens_asked is not None and num_sent != num_tokens_asked:
        notes.append(
            f"prompts have {num_sent} tokens by the answers' usage, not {num_tokens_asked}"
        )
    if drafts is not None and drafts.source == "metrics":
        notes.append("drafts are those of everybody's requests, from the server's /metrics")
    return Run(
        options=options,
        model=model,
        began_at=began_at,
        records=records,
        measures=measures,
        drafts=drafts,
        notes=tuple(notes),
    )
