"""Who is admitted when, and who is not taken at all."""

import random
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.admission import QueueLimits
from leadline.engine.errors import InvalidRequestError, QueueFullError
from leadline.engine.fair_share import FairShare
from leadline.engine.request import FinishReason
from leadline.engine.request_state import RequestState
from leadline.engine.waiting_queue import WaitingQueue


def order_of_admission(run: Any) -> list[str]:
    """Names in the order in which requests got their first token."""
    run.run()
    return list(run.outputs)


def test_lower_priority_numbers_come_first(engine: Any, request_of: Any) -> None:
    run = engine(max_num_seqs=1)
    for name, priority in (("a", 1), ("b", 0), ("c", -3), ("d", 1), ("e", 0)):
        run.core.submit(request_of(name, request={"priority": priority}))
    assert order_of_admission(run) == ["c", "b", "e", "a", "d"]


def test_the_lowest_in_order_loses_its_pages(engine: Any, request_of: Any) -> None:
    """A late request of high priority is not preempted for an early one of low priority."""
    run = engine(num_pages=7, page_size=4, max_num_seqs=2, prefix_caching=False)
    run.core.submit(request_of("early", range(8), 16, request={"priority": 5}))
    run.step()
    run.core.submit(request_of("late", range(20, 28), 16, request={"priority": 0}))
    run.run()
    assert run.core.stats().num_preemptions > 0
    finals = [name for name in run.outputs if run.outputs[name][-1].finish_reason]
    assert finals == ["early", "late"]
    ended = [o for outputs in run.outputs.values() for o in outputs if o.finish_reason]
    assert all(o.finish_reason is FinishReason.LENGTH for o in ended)


def test_a_flood_of_one_tenant_does_not_hold_up_another(engine: Any, request_of: Any) -> None:
    run = engine(max_num_seqs=2)
    for i in range(30):
        run.core.submit(request_of(f"flood{i}", [i] * 6, 8, request={"tenant": "flood"}))
    for _ in range(5):
        run.step()
    for i in range(5):
        run.core.submit(request_of(f"calm{i}", [i] * 6, 8, request={"tenant": "calm"}))
    places = [i for i, name in enumerate(order_of_admission(run)) if name.startswith("calm")]
    # From their arrival on, every second place is theirs.
    assert len(places) == 5
    assert places[-1] <= 2 + 2 * 5 + 2


def test_equal_shares_of_tokens_not_of_requests(engine: Any, request_of: Any) -> None:
    """A tenant with long requests gets fewer of them in."""
    run = engine(max_num_seqs=1, max_num_batched_tokens=64)
    for i in range(20):
        run.core.submit(request_of(f"long{i}", [i] * 4, 40, request={"tenant": "long"}))
        run.core.submit(request_of(f"short{i}", [i] * 4, 10, request={"tenant": "short"}))
    first = order_of_admission(run)[:15]
    num_long = sum(name.startswith("long") for name in first)
    assert 2 <= num_long <= 5


def test_idle_tenants_save_nothing_up() -> None:
    shares = FairShare()
    shares.arrive("busy")
    shares.charge("busy", num_output_tokens=500)
    shares.arrive("new")
    assert shares.served("new") == shares.served("busy") == 1000
    shares.charge("new", num_prompt_tokens=7)
    assert shares.served("new") == 1007
    shares.leave("new")
    shares.arrive("new")
    assert shares.served("new") == 1007


def test_shares_are_bounded() -> None:
    shares = FairShare()
    for i in range(10_000):
        shares.arrive(str(i))
        shares.charge(str(i), num_prompt_tokens=i)
        shares.leave(str(i))
    assert len(shares._served) <= 4096


@given(st.lists(st.tuples(st.integers(-1, 1), st.sampled_from("xyz")), max_size=20), st.randoms())
def test_candidates_are_everybody_once_in_order(
    request_of: Any, arrivals: list[tuple[int, str]], dice: random.Random
) -> None:
    queue = WaitingQueue(FairShare())
    for i, (priority, tenant) in enumerate(arrivals):
        extra = {"priority": priority, "tenant": tenant}
        queue.push(RequestState.of(request_of(str(i), request=extra), i))
    seen, removed = [], set()
    for state in queue.candidates():
        seen.append(state)
        if dice.random() < 0.5:
            queue.remove(state)
            removed.add(state.request_id)
    assert sorted(s.number for s in seen) == list(range(len(arrivals)))
    assert [s.request.priority for s in seen] == sorted(s.request.priority for s in seen)
    for tenant in "xyz":
        own = [s.order for s in seen if s.request.tenant == tenant]
        assert own == sorted(own)
    assert len(queue) == len(arrivals) - len(removed)
    assert queue.num_tokens == 3 * len(queue)


def test_more_than_may_wait_is_refused(engine: Any, request_of: Any) -> None:
    run = engine(max_num_seqs=2, scheduling={"queue_limits": QueueLimits(max_requests=1)})
    for name in "abc":  # two seats, and one that waits
        run.core.submit(request_of(name))
    with pytest.raises(QueueFullError, match="max_queued_requests is 1") as caught:
        run.core.submit(request_of("d"))
    assert caught.value.retry_after_s >= 0
    assert run.core.stats().admission_rejections == {"max_queued_requests": 1}
    run.run()
    run.core.submit(request_of("d"))
    run.run()
    assert run.text("d")


def test_more_tokens_than_may_wait_are_refused(engine: Any, request_of: Any) -> None:
    limits = QueueLimits(max_tokens=20)
    run = engine(max_num_seqs=2, scheduling={"queue_limits": limits})
    run.core.submit(request_of("alone", range(50)))  # an empty queue takes anything
    with pytest.raises(QueueFullError, match="max_queued_tokens is 20"):
        run.core.submit(request_of("b", range(5)))
    assert run.core.stats().admission_rejections == {"max_queued_tokens": 1}


def test_deadlines_end_requests_wherever_they_are(engine: Any, request_of: Any) -> None:
    now = [100.0]
    run = engine(max_num_seqs=1, scheduling={"now": lambda: now[0]})
    early = {"arrival_s": 99.0, "deadline_s": 101.0}
    run.core.submit(request_of("running", max_tokens=50, request=early))
    run.core.submit(request_of("waiting", request=early))
    run.core.submit(request_of("patient", request={"arrival_s": 99.0, "deadline_s": 1e9}))
    run.step()
    run.step()
    assert "waiting" not in run.outputs
    now[0] = 101.0
    run.run()
    for name in ("running", "waiting"):
        final = run.outputs[name][-1]
        assert final.finish_reason is FinishReason.ABORT
        assert "2 s after its arrival" in final.error
    assert 0 < len(run.text("running")) < 50
    assert run.outputs["patient"][-1].finish_reason is FinishReason.LENGTH
    assert run.core.stats().page_usage == 0


def test_choices_wait_for_the_first_ones_prompt_and_share_it(engine: Any, request_of: Any) -> None:
    run = engine(page_size=4, max_num_batched_tokens=8)
    run.core.submit(request_of("0", range(18), 6))
    for name in "123":
        run.core.submit(request_of(name, range(18), 6, request={"leader_id": "0"}))
    run.run()
    cached = [run.outputs[name][-1].num_cached_tokens for name in "0123"]
    assert cached == [0, 16, 16, 16]
    assert len({tuple(run.text(name)) for name in "0123"}) == 1


def test_choices_go_on_without_a_leader_that_has_ended(engine: Any, request_of: Any) -> None:
    run = engine(max_num_batched_tokens=8)
    run.core.submit(request_of("0", range(18), 6))
    run.core.submit(request_of("1", range(18), 6, request={"leader_id": "0"}))
    run.step()
    run.core.finish("0", FinishReason.ABORT)
    run.run()
    assert len(run.text("1")) == 6


def test_a_request_waits_until_it_is_prepared_and_holds_up_nobody(
    engine: Any, request_of: Any
) -> None:
    run = engine()
    preparing: dict[str, Future[None]] = {name: Future() for name in ("good", "bad")}
    for name, future in preparing.items():
        run.executor.prepare = lambda params, future=future: future
        run.core.submit(request_of(name))
    run.executor.prepare = lambda params: None
    run.core.submit(request_of("other"))
    while "other" not in run.outputs or not run.outputs["other"][-1].finish_reason:
        run.step()
    for _ in range(3):  # the executor drops what has ended
        run.step()
    assert list(run.outputs) == ["other"]
    assert not run.core.can_step()
    preparing["bad"].set_exception(InvalidRequestError("the grammar is empty"))
    run.step()
    assert run.outputs["bad"][-1].finish_reason is FinishReason.ERROR
    assert run.outputs["bad"][-1].error == "the grammar is empty"
    preparing["good"].set_result(None)
    run.run()
    assert run.text("good")
