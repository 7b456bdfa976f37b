import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.messages import EngineStats
from leadline.server.stats_log import log_lines, log_stats


def test_an_idle_engine_says_nothing() -> None:
    stats = EngineStats(prompt_tokens=10, generation_tokens=20, num_drafts=5, num_draft_tokens=5)
    assert log_lines(stats, stats, 10.0) == []
    assert log_lines(EngineStats(), EngineStats(), 10.0) == []


def test_a_line_tells_of_the_interval() -> None:
    before = EngineStats(
        prompt_tokens=100, generation_tokens=50, prefix_cache_queries=100, prefix_cache_hits=100
    )
    after = EngineStats(
        num_running=2,
        num_waiting=1,
        page_usage=0.125,
        prompt_tokens=300,
        generation_tokens=75,
        prefix_cache_queries=300,
        prefix_cache_hits=150,
    )
    assert log_lines(before, after, 10.0) == [
        "Avg prompt throughput: 20.0 tokens/s, Avg generation throughput: 2.5 tokens/s, "
        "Running: 2 reqs, Waiting: 1 reqs, KV cache usage: 12.5%, Prefix cache hit rate: 25.0%"
    ]


def test_drafts_have_a_line_of_their_own() -> None:
    before = EngineStats(num_drafts=10, num_draft_tokens=20, num_accepted_per_pos=[8])
    after = EngineStats(
        generation_tokens=1, num_drafts=14, num_draft_tokens=28, num_accepted_per_pos=[11, 1]
    )
    assert log_lines(before, after, 2.0)[1] == (
        "SpecDecoding metrics: Mean acceptance length: 2.00, "
        "Accepted throughput: 2.00 tokens/s, Drafted throughput: 4.00 tokens/s, "
        "Accepted: 4 tokens, Drafted: 8 tokens, "
        "Per-position acceptance rate: 0.750, 0.250, Avg Draft acceptance rate: 50.0%"
    )


def test_the_host_tier_and_preemptions_are_told_of_where_there_are_any() -> None:
    after = EngineStats(
        generation_tokens=1, host_cache_queries=40, host_cache_hits=10, num_preemptions=2
    )
    (line,) = log_lines(EngineStats(), after, 10.0)
    assert line.endswith("External prefix cache hit rate: 25.0%, Preempted: 2 reqs")


COUNTS = st.builds(
    EngineStats,
    num_running=st.just(1),
    **{
        name: st.integers(0, 50)
        for name in (
            *("prompt_tokens", "generation_tokens", "num_preemptions", "num_drafts"),
            *("prefix_cache_queries", "prefix_cache_hits", "host_cache_queries"),
            *("host_cache_hits", "num_draft_tokens"),
        )
    },
    num_accepted_per_pos=st.lists(st.integers(0, 50), max_size=3),
)


@given(COUNTS, COUNTS)
def test_an_engine_that_was_started_anew_has_no_negative_rates(
    before: EngineStats, after: EngineStats
) -> None:
    assert "-" not in "".join(log_lines(before, after, 10.0)).replace("Per-position", "")


def test_after_a_new_start_all_is_news() -> None:
    before = EngineStats(prompt_tokens=1000, generation_tokens=1000)
    after = EngineStats(prompt_tokens=50, generation_tokens=20, num_running=1)
    (line,) = log_lines(before, after, 10.0)
    assert line.startswith(
        "Avg prompt throughput: 5.0 tokens/s, Avg generation throughput: 2.0 tokens/s"
    )


def test_requests_that_only_wait_are_something() -> None:
    (line,) = log_lines(EngineStats(), EngineStats(num_waiting=3), 10.0)
    assert "Waiting: 3 reqs" in line
    assert "Prefix cache hit rate: 0.0%" in line


async def test_lines_come_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    readings = iter([EngineStats(), EngineStats(generation_tokens=5)])
    done = asyncio.Event()
    last = EngineStats(generation_tokens=5)

    def read() -> EngineStats:
        with contextlib.suppress(StopIteration):
            return next(readings)
        done.set()
        return last

    task = asyncio.create_task(log_stats(read, interval_s=0.001))
    await done.wait()
    await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [record.message.startswith("Avg prompt") for record in caplog.records] == [True]
