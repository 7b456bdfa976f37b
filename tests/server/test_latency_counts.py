"""Latencies that are told in bulk give the histogram that each by itself would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from leadline.server.latency_counts import BulkHistogram, LatencyCounts

BOUNDS_S = (0.25, 0.5, 1.0)  # and gaps are sums of eighths, so that sums are exact


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([1, 2, 4]), st.integers(0, 80).map(lambda n: n / 8)), max_size=20
    ),
    num_times=st.sampled_from([1, 40]),
)
def test_bulk_equals_one_by_one(steps: list[tuple[int, float]], num_times: int) -> None:
    registry = CollectorRegistry()
    single = Histogram("single", "", registry=registry, buckets=BOUNDS_S)
    bulk = BulkHistogram("bulk", "", registry=registry, buckets=BOUNDS_S)
    counts = LatencyCounts(bulk, BOUNDS_S)
    for num_tokens, gap_s in steps * num_times:
        counts.add(num_tokens, gap_s)
        for _ in range(num_tokens):
            single.observe(gap_s / num_tokens)
    counts.flush()
    for suffix in ("sum", "count", *(("bucket", {"le": str(b)}) for b in (*BOUNDS_S, "+Inf"))):
        name, labels = suffix if isinstance(suffix, tuple) else (suffix, {})
        told = registry.get_sample_value(f"bulk_{name}", labels)
        assert told == registry.get_sample_value(f"single_{name}", labels)


def test_few_are_held() -> None:
    registry = CollectorRegistry()
    counts = LatencyCounts(BulkHistogram("held", "", registry=registry, buckets=(1.0,)), (1.0,))
    for _ in range(1000):
        counts.add(1, 0.5)
    assert registry.get_sample_value("held_count") > 1000 - 257
