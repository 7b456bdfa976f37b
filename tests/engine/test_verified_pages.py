"""Cached pages that have changed are noticed before they are used (`--verify-pages`)."""

import logging
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.page_pool import PageState
from leadline.engine.request_state import RequestState

VERIFIED = {"scheduling": {"verify_pages": True}}
PROMPT = list(range(18))  # four full pages of four tokens, and more


def idle_cached_pages(run: Any) -> list[int]:
    """Pages that the cache lists and no request holds."""
    pages = run.core.survey().pages
    return [page_id for page_id, state in enumerate(pages) if state == PageState.CACHED]


def ask(
    run: Any, request_of: Any, name: str, prompt: list[int] = PROMPT, max_tokens: int = 4
) -> Any:
    run.core.submit(request_of(name, prompt, max_tokens))
    run.run()
    return run.outputs[name][-1]


def test_sound_pages_are_used(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    again = ask(run, request_of, "again")
    assert again.num_cached_tokens == 16
    assert run.text("again") == run.text("first")
    stats = run.core.stats()
    assert stats.num_corrupted_pages == 0
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (36, 16)


@pytest.mark.parametrize("page", [0, 2])
def test_a_changed_page_and_those_after_it_are_computed_anew(
    engine: Any, request_of: Any, caplog: pytest.LogCaptureFixture, page: int
) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    run.core.submit(request_of("look", PROMPT, 1))
    run.core.start_steps()
    page_ids = list(run.scheduler.book.requests["look"].page_ids)
    run.run()
    run.executor.pages.corrupt(page_ids[page])
    with caplog.at_level(logging.WARNING):
        again = ask(run, request_of, "again")
    assert again.num_cached_tokens == 4 * page
    assert run.text("again") == run.text("first")
    assert run.core.stats().num_corrupted_pages == 1
    assert f"pages [{page_ids[page]}]" in caplog.text
    assert "'again'" in caplog.text
    whole = ask(run, request_of, "whole")
    assert whole.num_cached_tokens == 16
    assert run.core.stats().num_corrupted_pages == 1
    assert run.core.stats().prefix_cache_hits == 16 + 4 * page + 16


def test_all_choices_of_a_request_get_over_it(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    run.executor.pages.corrupt(idle_cached_pages(run)[0])
    for i in range(4):
        leader = {"leader_id": "0"} if i else {}
        run.core.submit(request_of(str(i), PROMPT, 4, request=leader))
    run.run()
    assert [run.text(str(i)) for i in range(4)] == [run.text("first")] * 4
    assert run.core.stats().num_corrupted_pages == 1


def test_a_preempted_request_comes_back_right(engine: Any, request_of: Any) -> None:
    """Its own pages, which it finds again, are checked as those of others are."""
    run = engine(num_pages=8, max_num_seqs=2, **VERIFIED)
    run.core.submit(request_of("old", range(8), 20))
    run.core.submit(request_of("young", range(50, 58), 20))
    num_preemptions = 0
    while run.core.has_work():
        run.step()
        if run.core.stats().num_preemptions > num_preemptions:
            num_preemptions = run.core.stats().num_preemptions
            for page_id in idle_cached_pages(run):
                run.executor.pages.corrupt(page_id)
    assert num_preemptions > 0
    assert run.core.stats().num_corrupted_pages > 0
    alone = engine()
    alone.core.submit(request_of("old", range(8), 20))
    alone.core.submit(request_of("young", range(50, 58), 20))
    alone.run()
    assert run.text("old") == alone.text("old")
    assert run.text("young") == alone.text("young")


def test_damage_before_the_eviction_is_noticed_after_it(engine: Any, request_of: Any) -> None:
    run = engine(num_pages=7, num_host_pages=8, **VERIFIED)
    ask(run, request_of, "first")
    for page_id in idle_cached_pages(run):
        run.executor.pages.corrupt(page_id)
    ask(run, request_of, "other", [50 + i for i in range(18)])
    again = ask(run, request_of, "again")
    assert again.num_cached_tokens == 0
    assert run.text("again") == run.text("first")
    assert run.core.stats().host_pages_lost > 0
    assert run.core.stats().num_corrupted_pages > 0


def test_an_abort_during_the_check_frees_the_pages(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    run.executor.pages.corrupt(idle_cached_pages(run)[0])
    run.core.submit(request_of("again", PROMPT, 4))
    run.core.start_steps()
    run.core.finish("again", "abort")
    run.run()
    run.scheduler.check()
    assert run.core.stats().page_usage == 0
    assert run.core.stats().num_running == 0
    assert run.core.stats().num_corrupted_pages == 1


def test_a_reset_during_the_check(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    run.executor.pages.corrupt(idle_cached_pages(run)[0])
    run.core.submit(request_of("again", PROMPT, 4))
    run.core.start_steps()
    run.core.reset_prefix_cache()
    run.run()
    assert run.text("again") == run.text("first")


def test_the_pages_after_a_damaged_one_are_forgotten(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    ask(run, request_of, "other", [77] * 18)
    num_pages = run.core.stats().num_cached_pages
    run.core.submit(request_of("look", PROMPT, 1))
    run.core.start_steps()
    second = run.scheduler.book.requests["look"].page_ids[1]
    run.run()
    run.executor.pages.corrupt(second)
    run.core.submit(request_of("again", PROMPT, 4))
    run.core.start_steps()
    run.take(run.core.complete_step())
    assert run.core.stats().num_cached_pages == num_pages - 4  # of five: four of the prompt


def test_two_steps_find_the_same_damage(engine: Any, request_of: Any) -> None:
    run = engine(**VERIFIED)
    ask(run, request_of, "first")
    run.executor.pages.corrupt(idle_cached_pages(run)[0])
    run.core.submit(request_of("again", PROMPT, 4))
    run.core.start_steps()
    run.core.submit(request_of("too", PROMPT, 4))
    run.run()
    assert run.text("again") == run.text("too") == run.text("first")
    assert run.core.stats().num_corrupted_pages == 1


def test_who_holds_a_damaged_page_shares_nothing_after_it(request_of: Any) -> None:
    kv = KVCacheManager(20, 4, prefix_caching=True, verify_pages=True)

    def admitted(name: str) -> RequestState:
        state = RequestState.of(request_of(name, PROMPT, 20))
        assert kv.admit(state)
        if state.is_loading:
            assert kv.finish_load(state, set())
        return state

    def compute(state: RequestState, num_tokens: int) -> None:
        state.num_computed_tokens = num_tokens
        kv.commit(state)

    reader = admitted("reader")
    compute(reader, 8)
    kv.drop_damaged([reader.page_ids[0]])
    compute(reader, 16)
    assert admitted("next").num_computed_tokens == 0
    kv.free(reader)
    fresh = admitted("fresh")
    compute(fresh, 16)
    assert admitted("later").num_computed_tokens == 16
    kv.check()


def test_without_the_flag_no_page_is_checked(engine: Any, request_of: Any) -> None:
    def plans(**options: Any) -> list[Any]:
        run = engine(**options)
        made = []
        execute = run.executor.execute
        run.executor.execute = lambda plan: made.append(plan) or execute(plan)
        ask(run, request_of, "first")
        ask(run, request_of, "again")
        return made

    unchecked, checked = plans(), plans(**VERIFIED)
    assert not any(plan.checked_page_ids for plan in unchecked)
    assert [len(plan.checked_page_ids) for plan in checked if plan.checked_page_ids] == [4]
    rows = [[row for plan in made for row in plan.rows] for made in (unchecked, checked)]
    assert rows[0] == rows[1]
    assert sum(not plan.rows for plan in checked) == sum(not plan.rows for plan in unchecked) + 1


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompts=st.lists(
        st.tuples(st.integers(0, 12), st.lists(st.integers(1, 3), min_size=1, max_size=6)),
        min_size=2,
        max_size=10,
    ),
    num_pages=st.integers(8, 24),
    num_host_pages=st.sampled_from([0, 3, 30]),
    num_drafts=st.integers(0, 2),
    page_size=st.integers(1, 4),
    max_steps=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_no_request_ever_reads_a_changed_page(
    engine: Any,
    request_of: Any,
    prompts: list[tuple[int, list[int]]],
    num_pages: int,
    num_host_pages: int,
    num_drafts: int,
    page_size: int,
    max_steps: int,
    seed: int,
) -> None:
    """The executor notices each row that reads a wrong slot; the texts are those without faults."""
    dice = random.Random(seed)
    requests = [
        request_of(str(i), [*range(shared), *own], 6) for i, (shared, own) in enumerate(prompts)
    ]
    run = engine(
        num_pages=-(-24 // page_size) + num_pages,
        page_size=page_size,
        num_host_pages=num_host_pages,
        num_drafts=num_drafts,
        draft_acceptance=0.6,
        max_num_seqs=4,
        max_steps=max_steps,
        **VERIFIED,
    )
    num_steps = 0
    while requests or run.core.has_work():
        assert num_steps < 1000, "no progress"
        num_steps += 1
        if requests and dice.random() < 0.5:
            run.core.submit(requests.pop(0))
        run.step()
        for page_id in idle_cached_pages(run):
            if dice.random() < 0.1:
                run.executor.pages.corrupt(page_id)
    assert run.core.stats().page_usage == 0
    for i, (shared, own) in enumerate(prompts):
        alone = engine()
        ask(alone, request_of, str(i), [*range(shared), *own], max_tokens=6)
        assert run.text(str(i)) == alone.text(str(i))
