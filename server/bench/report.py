"""The table at the end of a run, line by line as `vllm bench serve` prints it."""

import math
from collections.abc import Iterator

from leadline.server.bench.drafts import DraftMeasures
from leadline.server.bench.measures import Spread
from leadline.server.bench.run import Run

_WIDTH = 50
_MAX_ERRORS = 10
# Of each metric: its short name, and the heading of its part of the table.
_HEADINGS = {
    "ttft": ("TTFT", "Time to First Token"),
    "tpot": ("TPOT", "Time per Output Token (excl. 1st token)"),
    "itl": ("ITL", "Inter-token Latency"),
    "e2el": ("E2EL", "End-to-end Latency"),
    "client_queue_time": ("Client Queue Time", "Client-side Queueing"),
    "e2el_including_client_queue": (
        "E2EL incl. Client Queue",
        "Queue-inclusive End-to-end Latency",
    ),
}


def report_lines(run: Run) -> Iterator[str]:
    """The lines of the table."""
    yield f"{' Serving Benchmark Result ':=^{_WIDTH}}"
    yield from _totals(run)
    for metric, spread in run.spreads():
        yield from _spread(metric, spread)
    if run.drafts is not None:
        yield from _drafts(run.drafts)
    if run.measures.errors:
        yield from _errors(run.measures.errors)
    yield "=" * _WIDTH
    for note in run.notes:
        yield f"Note: {note}."


def percentile_word(percentile: float) -> str:
    """As in `p99`: `99` for 99.0, `99.9` for 99.9."""
    return f"{percentile:.15g}"


def _totals(run: Run) -> Iterator[str]:
    options, measures = run.options, run.measures
    yield _line("Successful requests:", measures.num_completed)
    yield _line("Failed requests:", measures.num_failed)
    if options.max_concurrency is not None:
        yield _line("Maximum request concurrency:", options.max_concurrency)
    if not math.isinf(options.request_rate):
        yield _line("Request rate configured (RPS):", options.request_rate)
    yield _line("Benchmark duration (s):", measures.duration_s)
    yield _line("Total input tokens:", measures.num_input_tokens)
    yield _line("Total generated tokens:", measures.num_output_tokens)
    yield _line("Request throughput (req/s):", measures.request_throughput)
    if measures.goodput is not None:
        yield _line("Request goodput (req/s):", measures.goodput)
    yield _line("Output token throughput (tok/s):", measures.output_throughput)
    yield _line("Peak output token throughput (tok/s):", measures.max_output_tokens_per_s)
    yield _line("Peak concurrent requests:", float(measures.max_concurrent_requests))
    yield _line("Total token throughput (tok/s):", measures.total_token_throughput)


def _spread(metric: str, spread: Spread) -> Iterator[str]:
    name, heading = _HEADINGS[metric]
    yield f"{heading:-^{_WIDTH}}"
    yield _line(f"Mean {name} (ms):", spread.mean_ms)
    yield _line(f"Median {name} (ms):", spread.median_ms)
    yield _line(f"Std {name} (ms):", spread.std_ms)
    for percentile, value_ms in spread.percentiles_ms:
        yield _line(f"P{percentile_word(percentile)} {name} (ms):", value_ms)


def _drafts(drafts: DraftMeasures) -> Iterator[str]:
    yield f"{'Speculative Decoding':-^{_WIDTH}}"
    yield _line("Acceptance rate (%):", drafts.acceptance_percent)
    yield _line("Acceptance length:", drafts.acceptance_length)
    yield _line("Drafts:", drafts.counts.num_drafts)
    yield _line("Draft tokens:", drafts.counts.num_draft_tokens)
    yield _line("Accepted tokens:", drafts.counts.num_accepted_tokens)
    if drafts.acceptance_by_position:
        yield "Per-position acceptance (%):"
        for position, share in enumerate(drafts.acceptance_by_position):
            yield _line(f"  Position {position}:", share * 100)


def _errors(errors: tuple[tuple[str, int], ...]) -> Iterator[str]:
    yield f"{'Failures':-^{_WIDTH}}"
    for text, count in errors[:_MAX_ERRORS]:
        yield f"{count} x {text}"
    if len(errors) > _MAX_ERRORS:
        num_rest = sum(count for _, count in errors[_MAX_ERRORS:])
        yield f"{num_rest} x {len(errors) - _MAX_ERRORS} other errors"


def _line(label: str, value: float) -> str:
    text = f"{value:.2f}" if isinstance(value, float) else f"{value}"
    return f"{label:<40} {text}"
