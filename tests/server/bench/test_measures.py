import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.bench.measures import (
    Spread,
    is_good,
    measure,
    peak_concurrency,
    peak_tokens_per_s,
    values_s,
)
from leadline.server.bench.record import Record

TIMES = st.integers(0, 4000).map(lambda number: number / 1000)


def record_of(start_s: float, token_times_s: list[float], end_s: float, **fields: object) -> Record:
    num_tokens = len(token_times_s)
    defaults = {"num_output_tokens": num_tokens, "num_prompt_tokens": 3, "has_usage": True}
    return Record(
        start_s=start_s,
        token_times_s=token_times_s,
        end_s=end_s,
        **(defaults | fields),  # type: ignore[arg-type]
    )


@st.composite
def records(draw: st.DrawFn) -> Record:
    start_s, *times, end_s = sorted(draw(st.lists(TIMES, min_size=2, max_size=12)))
    return record_of(start_s, times, end_s, num_output_tokens=draw(st.integers(0, 30)))


def test_times_of_a_request() -> None:
    record = record_of(1.0, [1.5, 1.75, 2.75], 3.0, num_output_tokens=4)
    assert record.ttft_s == 0.5
    assert record.itls_s == [0.25, 1.0]
    assert record.latency_s == 2.0
    assert record.tpot_s == 0.5


def test_an_answer_without_text_has_its_first_token_at_its_end() -> None:
    record = record_of(1.0, [], 3.0, num_output_tokens=1)
    assert (record.ttft_s, record.tpot_s, record.itls_s) == (2.0, 0.0, [])


@given(st.lists(st.floats(0, 100), min_size=1), st.lists(st.floats(0, 100)))
def test_a_spread_is_numpys(seconds: list[float], percentiles: list[float]) -> None:
    spread = Spread.of(seconds, percentiles)
    values = np.array(seconds) * 1000
    assert spread.mean_ms == pytest.approx(np.mean(values))
    assert spread.std_ms == pytest.approx(np.std(values))
    assert spread.median_ms == pytest.approx(np.median(values))
    assert [p for p, _ in spread.percentiles_ms] == percentiles
    expected = [np.percentile(values, p) for p in percentiles]
    assert [value for _, value in spread.percentiles_ms] == pytest.approx(expected)


@given(st.lists(records(), min_size=1, max_size=12))
def test_the_peak_of_requests_is_that_of_any_moment(of_run: list[Record]) -> None:
    moments = [record.start_s for record in of_run]
    at_once = [sum(r.start_s <= moment < r.end_s for r in of_run) for moment in moments]
    assert peak_concurrency(of_run) >= max(at_once)
    if all(record.start_s < record.end_s for record in of_run):
        assert peak_concurrency(of_run) == max(at_once)


@given(st.lists(records(), max_size=8))
def test_the_peak_of_tokens_is_that_of_any_second(of_run: list[Record]) -> None:
    tokens = [
        (time_s, record.num_output_tokens / len(record.token_times_s or [0]))
        for record in of_run
        for time_s in record.token_times_s or [record.end_s]
    ]
    sums = [sum(n for at_s, n in tokens if begin <= at_s < begin + 1.0) for begin, _ in tokens]
    assert peak_tokens_per_s(of_run) == pytest.approx(max(sums, default=0.0))


@given(st.lists(records(), max_size=8), st.floats(0, 3000), st.floats(0, 3000))
def test_goodput_is_of_requests_within_every_limit(
    of_run: list[Record], ttft_ms: float, e2el_ms: float
) -> None:
    measures = measure(of_run, 2.0, {"ttft": ttft_ms, "e2el": e2el_ms})
    good = [r for r in of_run if r.ttft_s * 1000 <= ttft_ms and r.latency_s * 1000 <= e2el_ms]
    assert measures.goodput == len(good) / 2.0


def test_one_token_has_no_time_per_token_and_keeps_within_its_limit() -> None:
    assert is_good(record_of(0.0, [1.0], 1.0), {"tpot": 0.0})
    assert values_s([record_of(0.0, [1.0], 1.0)], "tpot") == []


def test_failures_add_nothing_but_their_count() -> None:
    success, failure = record_of(0.0, [1.0, 2.0], 2.0), record_of(0.0, [1.0], 9.0, error="e")
    measures = measure([success, failure, failure], 4.0, {})
    assert (measures.num_completed, measures.num_failed) == (1, 2)
    assert (measures.num_input_tokens, measures.num_output_tokens) == (3, 2)
    assert measures.errors == (("e", 2),)
    assert measures.request_throughput == 0.25
    assert measures.output_throughput == 0.5
    assert measures.total_token_throughput == 1.25
    assert measures.goodput is None
    assert values_s([success, failure], "ttft") == [1.0]
