"""What the engine counts: times of requests and pages, depths of drafts, pages that move."""

from typing import Any

import pytest

from leadline.engine.clock import VirtualClock
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.histogram import DRAFT_DEPTH_BOUNDS, Histogram, Recorder
from leadline.engine.page_times import PageTimes
from leadline.engine.request import FinishReason

STEP_S = 1.0


@pytest.fixture
def timed(engine: Any) -> Any:
    """Makes an engine whose every step takes a second of a clock that nothing else moves."""

    def make(**options: Any) -> Any:
        clock = VirtualClock()
        run = engine(
            step_time=StepTimeModel(fixed_s=STEP_S),
            clock=clock,
            scheduling={"now": clock.now},
            max_steps=1,
            **options,
        )
        run.clock = clock
        return run

    return make


def count(histogram: Histogram) -> int:
    return sum(histogram.counts)


def test_an_observation_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    recorder = Recorder((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 2.1):
        recorder.observe(value)
    assert recorder.read() == Histogram([2, 2, 1], pytest.approx(6.6))


def test_a_request_s_time_adds_up(timed: Any, request_of: Any) -> None:
    run = timed(max_num_batched_tokens=4, max_num_seqs=4)
    run.core.submit(request_of("a", range(1, 9), 3))
    run.run()
    first, last = run.outputs["a"][0].timing, run.outputs["a"][-1].timing
    assert (first.queue_s, first.prefill_s, first.decode_s) == (0.0, 2 * STEP_S, 0.0)
    assert (last.queue_s, last.prefill_s, last.decode_s) == (0.0, 2 * STEP_S, 2 * STEP_S)
    assert all(output.timing is None for output in run.outputs["a"][1:-1])


def test_who_waits_for_another_has_queued(timed: Any, request_of: Any) -> None:
    run = timed(max_num_seqs=1)
    run.core.submit(request_of("a", range(1, 4), 5))
    run.core.submit(request_of("b", range(4, 7), 1))
    run.run()
    assert run.outputs["b"][-1].timing.queue_s == 5 * STEP_S
    assert run.outputs["b"][-1].timing.prefill_s == STEP_S


def test_who_leaves_the_queue_has_queued_alone(timed: Any, request_of: Any) -> None:
    run = timed(max_num_seqs=1)
    run.core.submit(request_of("a", range(1, 4), 5))
    run.core.submit(request_of("b", range(4, 7), 1))
    run.step()
    run.step()
    timing = run.core.finish("b", FinishReason.ABORT).timing
    assert (timing.queue_s, timing.prefill_s, timing.decode_s) == (2 * STEP_S, 0.0, 0.0)


def test_lost_pages_are_counted_for_the_request(timed: Any, request_of: Any) -> None:
    run = timed(num_pages=4, max_num_batched_tokens=16, prefix_caching=False)
    run.core.submit(request_of("old", range(4), 9))
    run.core.submit(request_of("young", range(10, 18), 7))
    run.run()
    assert run.outputs["old"][-1].timing.num_preemptions == 0
    young = run.outputs["young"][-1].timing
    assert young.num_preemptions == run.core.stats().num_preemptions == 1
    assert young.queue_s == 0.0, "it is no longer new when it waits again"


def test_page_times() -> None:
    clock = VirtualClock()
    times = PageTimes(2, clock.now)
    times.take([0, 1])
    clock.advance(1.0)
    times.release([0])
    clock.advance(2.0)
    times.reuse([0])
    clock.advance(4.0)
    times.release([0])
    clock.advance(8.0)
    times.evict(0)
    assert (count(times.reuse_gaps.read()), times.reuse_gaps.read().total) == (1, 3.0)
    assert (count(times.idle_times.read()), times.idle_times.read().total) == (1, 8.0)
    assert (count(times.lifetimes.read()), times.lifetimes.read().total) == (1, 15.0)


def test_pages_that_are_shared_and_evicted(timed: Any, request_of: Any) -> None:
    run = timed(num_pages=6)
    for name, prompt in (("a", range(16)), ("again", range(16)), ("other", range(100, 116))):
        run.core.submit(request_of(name, list(prompt), 4))
        run.run()
    stats = run.core.stats()
    assert run.outputs["again"][-1].num_cached_tokens == 12
    assert count(stats.page_reuse_gaps) == 3
    assert stats.prefix_cache_evictions > 0
    assert count(stats.page_lifetimes) == stats.prefix_cache_evictions
    assert count(stats.page_idle_times) == stats.prefix_cache_evictions
    assert stats.page_lifetimes.total >= stats.page_idle_times.total > 0


def test_depths_of_drafts_and_steps(timed: Any, request_of: Any) -> None:
    run = timed(num_drafts=2, draft_acceptance=1.0)
    run.core.submit(request_of("a", range(1, 5), 10))
    run.run()
    stats = run.core.stats()
    assert count(stats.step_times) == count(stats.step_tokens) == stats.num_steps
    assert stats.step_times.total == stats.num_steps * STEP_S
    depths = dict(zip(DRAFT_DEPTH_BOUNDS, stats.draft_depths.counts, strict=False))
    assert depths[2] > 0
    assert all(depths[depth] == 0 for depth in range(3, 9))
    assert stats.num_accepted_tokens == stats.num_draft_tokens > 0


def test_pages_that_go_to_the_host_and_come_back(engine: Any, request_of: Any) -> None:
    damaged: set[int] = set()
    run = engine(num_pages=6, num_host_pages=8, damage=lambda host_id: host_id in damaged)

    def chat(name: str, prompt: range) -> Any:
        run.core.submit(request_of(name, list(prompt), 4))
        run.run()
        return run.outputs[name][-1]

    chat("first", range(16))
    chat("other", range(100, 116))
    again = chat("again", range(16))
    stats = run.core.stats()
    assert stats.host_pages_stored > 0
    assert stats.host_pages_loaded * 4 == again.timing.num_host_tokens == stats.host_prompt_tokens
    assert stats.host_pages_lost == 0
    damaged.update(range(8))
    chat("third", range(200, 216))
    chat("damaged", range(16))
    assert run.core.stats().host_pages_lost > 0
