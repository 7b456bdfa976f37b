"""From the records of a run to its figures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leadline.server.bench.record import Record

_MS = 1000.0
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How one metric is spread over the successful requests, in milliseconds.

    Attributes:
        percentiles_ms: each percentile that was asked for, and its value.
    """

    mean_ms: float
    median_ms: float
    std_ms: float
    percentiles_ms: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, values_s: Sequence[float], percentiles: Sequence[float]) -> "Spread":
        """Of seconds, one at least."""
        values = np.array(values_s) * _MS
        return cls(
            mean_ms=float(values.mean()),
            median_ms=float(np.median(values)),
            std_ms=float(values.std()),
            percentiles_ms=tuple((p, float(np.percentile(values, p))) for p in percentiles),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What a run has shown; tokens and times are those of successful requests.

    Attributes:
        goodput: requests a second within every limit of `--goodput`; None without any.
        max_output_tokens_per_s: in the best second, wherever it begins.
        num_without_usage: successful answers that do not tell how many tokens they have.
        errors: texts of failures, and how often each occurred, the most frequent first.
    """

    duration_s: float
    num_completed: int
    num_failed: int
    num_input_tokens: int
    num_output_tokens: int
    goodput: float | None
    max_output_tokens_per_s: float
    max_concurrent_requests: int
    num_without_usage: int
    errors: tuple[tuple[str, int], ...]

    @property
    def request_throughput(self) -> float:
        """Successful requests a second."""
        return self.num_completed / self.duration_s

    @property
    def output_throughput(self) -> float:
        """Output tokens a second."""
        return self.num_output_tokens / self.duration_s

    @property
    def total_token_throughput(self) -> float:
        """Tokens of prompts and answers a second."""
        return (self.num_input_tokens + self.num_output_tokens) / self.duration_s


def measure(
    records: Sequence[Record], duration_s: float, goodput_ms: Mapping[str, float]
) -> Measures:
    """The figures of a run of `duration_s` seconds."""
    successes = [record for record in records if record.is_success]
    errors = Counter(record.error for record in records if not record.is_success)
    num_good = sum(is_good(record, goodput_ms) for record in successes)
    return Measures(
        duration_s=duration_s,
        num_completed=len(successes),
        num_failed=len(records) - len(successes),
        num_input_tokens=sum(record.num_prompt_tokens or 0 for record in successes),
        num_output_tokens=sum(record.num_output_tokens for record in successes),
        goodput=num_good / duration_s if goodput_ms else None,
        max_output_tokens_per_s=peak_tokens_per_s(successes),
        max_concurrent_requests=peak_concurrency(successes),
        num_without_usage=sum(not record.has_usage for record in successes),
        errors=tuple(errors.most_common()),
    )


def is_good(record: Record, goodput_ms: Mapping[str, float]) -> bool:
    """Whether a successful request keeps within every limit."""
    values_s = {"ttft": record.ttft_s, "tpot": record.tpot_s, "e2el": record.latency_s}
    return all(values_s[name] * _MS <= limit_ms for name, limit_ms in goodput_ms.items())


def values_s(records: Sequence[Record], metric: str) -> list[float]:
    """Of each successful request a metric's value: of `itl` all, of `tpot` none after one token."""
    successes = [record for record in records if record.is_success]
    match metric:
        case "ttft":
            return [record.ttft_s for record in successes]
        case "tpot":
            return [record.tpot_s for record in successes if record.num_output_tokens > 1]
        case "itl":
            return [itl_s for record in successes for itl_s in record.itls_s]
        case "e2el":
            return [record.latency_s for record in successes]
        case "client_queue_time":
            return [record.queue_s for record in successes]
        case "e2el_including_client_queue":
            return [record.latency_s + record.queue_s for record in successes]
    raise AssertionError(metric)


def token_arrivals(successes: Sequence[Record]) -> tuple[FloatArray, FloatArray]:
    """When output tokens came, in order, and how many at each time.

    A request's tokens are spread evenly over its chunks: a step that accepts drafts sends several
    in one.
    """
    times = [np.array(record.token_times_s or [record.end_s]) for record in successes]
    counts = [
        np.full(len(of_one), record.num_output_tokens / len(of_one))
        for record, of_one in zip(successes, times, strict=True)
    ]
    if not times:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(all_times := np.concatenate(times), kind="stable")
    return all_times[order], np.concatenate(counts)[order]


def peak_tokens_per_s(successes: Sequence[Record]) -> float:
    """The most output tokens within any one second."""
    times, counts = token_arrivals(successes)
    before = np.concatenate([[0.0], np.cumsum(counts)])
    ends = np.searchsorted(times, times + 1.0)
    return float((before[ends] - before[:-1]).max(initial=0.0))


def peak_concurrency(successes: Sequence[Record]) -> int:
    """The most requests that were under way at a time; one that ends makes room first."""
    changes = sorted(
        [(record.start_s, 1) for record in successes] + [(record.end_s, -1) for record in successes]
    )
    return int(np.cumsum([change for _, change in changes]).max(initial=0))
