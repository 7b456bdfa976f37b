"""Pages that leave the pool come back from the host, whole or not at all."""

from typing import Any

import pytest

from leadline.engine.host_tier import HostTier

A, B, C = (bytes([i]) * 32 for i in range(3))


def test_least_recently_used_goes_first() -> None:
    tier = HostTier(2)
    assert tier.put(A) == (0, None)
    assert tier.put(B) == (1, None)
    assert tier.put(A) == (None, None)
    assert tier.put(C) == (1, B)
    assert tier.match([A, C]) == [0, 1]
    assert tier.match([B, C]) == []
    tier.check()


def test_dropped_places_are_used_again() -> None:
    tier = HostTier(1)
    tier.put(A)
    assert tier.drop(0) == A
    assert tier.drop(0) is None
    assert tier.put(B) == (0, None)
    tier.clear()
    assert len(tier) == 0
    tier.check()


def test_no_tier_takes_nothing() -> None:
    assert HostTier(0).put(A) == (None, None)


def chat(run: Any, request_of: Any, name: str, prompt: list[int]) -> Any:
    run.core.submit(request_of(name, prompt, 4))
    run.run()
    return run.outputs[name][-1]


def make(engine: Any, **options: Any) -> Any:
    return engine(num_pages=6, page_size=4, num_host_pages=8, num_drafts=2, **options)


def test_evicted_pages_come_back(engine: Any, request_of: Any) -> None:
    run = make(engine)
    first = chat(run, request_of, "first", list(range(16)))
    chat(run, request_of, "other", list(range(100, 116)))
    assert run.core.stats().prefix_cache_evictions > 0
    again = chat(run, request_of, "again", list(range(16)))
    assert first.num_cached_tokens == 0
    assert again.num_cached_tokens == 12
    assert run.text("again") == run.text("first")
    assert run.core.stats().host_cache_hits > 0


def test_a_damaged_page_is_computed_anew(engine: Any, request_of: Any) -> None:
    damaged: set[int] = set()
    run = make(engine, damage=lambda host_id: host_id in damaged)
    chat(run, request_of, "first", list(range(16)))
    chat(run, request_of, "other", list(range(100, 116)))
    damaged.update(range(8))
    again = chat(run, request_of, "again", list(range(16)))
    assert again.num_cached_tokens < 12
    assert run.text("again") == run.text("first")


@pytest.mark.parametrize("step", [0, 1])
def test_abort_while_loading_frees_the_pages(engine: Any, request_of: Any, step: int) -> None:
    run = make(engine)
    chat(run, request_of, "first", list(range(16)))
    chat(run, request_of, "other", list(range(100, 116)))
    run.core.submit(request_of("again", list(range(16)), 4))
    run.core.start_steps()
    if step:
        run.take(run.core.complete_step())
    run.core.finish("again", "abort")
    run.run()
    run.scheduler.check()
    assert run.core.stats().page_usage == 0
    assert run.core.stats().num_running == 0


def test_reset_while_loading(engine: Any, request_of: Any) -> None:
    run = make(engine)
    chat(run, request_of, "first", list(range(16)))
    chat(run, request_of, "other", list(range(100, 116)))
    run.core.submit(request_of("again", list(range(16)), 4))
    run.core.start_steps()
    assert run.core.reset_prefix_cache() > 0
    run.run()
    assert run.text("again") == run.text("first")
    assert run.core.stats().host_cache_usage == 0
