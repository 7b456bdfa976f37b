"""Pausing, resuming and aborting: what steps are taken, and that the text stays the same."""

from typing import Any

import pytest

from leadline.engine.control import PauseMode
from leadline.engine.messages import EngineStats
from leadline.engine.progress import Progress
from leadline.engine.request import ABORTED_BY_OPERATOR, EngineRequest, FinishReason


def whole(engine: Any, *requests: EngineRequest) -> dict[str, list[int]]:
    """The texts of requests that nothing disturbs."""
    alone = engine()
    for request in requests:
        alone.core.submit(request)
    alone.run()
    return {request.request_id: alone.text(request.request_id) for request in requests}


@pytest.mark.parametrize("max_steps", [1, 2])
def test_kept_requests_go_on_where_they_were(engine: Any, request_of: Any, max_steps: int) -> None:
    early, late = request_of("early", [1, 2], 20), request_of("late", [1, 3], 20)
    texts = whole(engine, early, late)
    paused = engine(max_steps=max_steps)
    paused.core.submit(early)
    for _ in range(5):
        paused.step()
    paused.core.pause(PauseMode.KEEP)
    paused.core.submit(late)
    assert paused.core.stats().holds_requests
    paused.run()
    stats = paused.core.stats()
    assert stats.is_paused
    assert (stats.num_running, stats.num_waiting) == (1, 1)
    assert paused.text("early") == texts["early"][: len(paused.text("early"))]
    assert len(paused.text("early")) < 20
    paused.core.resume()
    paused.run()
    assert {name: paused.text(name) for name in texts} == texts
    assert not paused.core.stats().is_paused


def test_requests_finish_before_a_pause_that_waits(engine: Any, request_of: Any) -> None:
    early = [request_of(f"early{i}", [1, i], 10 + i) for i in range(12)]
    late = request_of("late", [1, 30], 5)
    texts = whole(engine, *early, late)
    paused = engine()
    for request in early:
        paused.core.submit(request)
    paused.step()
    paused.core.pause(PauseMode.WAIT)
    paused.core.submit(late)
    assert not paused.core.is_paused
    paused.run()
    assert paused.core.is_paused
    assert {r.request_id: paused.text(r.request_id) for r in early} == {
        r.request_id: texts[r.request_id] for r in early
    }
    assert paused.text("late") == []
    paused.core.resume()
    paused.run()
    assert paused.text("late") == texts["late"]


def test_requests_end_at_a_pause_that_aborts(engine: Any, request_of: Any) -> None:
    paused = engine()
    paused.core.submit(request_of("a", [1], 20))
    paused.step()
    (final,) = paused.core.pause(PauseMode.ABORT)
    assert (final.finish_reason, final.error) == (FinishReason.ABORT, ABORTED_BY_OPERATOR)
    paused.core.submit(request_of("b", [2], 5))
    paused.run()
    assert paused.core.is_paused
    paused.core.resume()
    paused.run()
    assert len(paused.text("b")) == 5


def test_requests_are_aborted_by_any_of_their_names(engine: Any, request_of: Any) -> None:
    some = engine()
    for i, names in enumerate([("x", "mine"), ("x", "mine"), ("y",), ("mine-too",), ()]):
        some.core.submit(request_of(str(i), [i], 20, request={"names": names}))
    some.step()
    finals, aborted = some.core.abort(["mine", "y", "unknown"])
    assert [final.request_id for final in finals] == ["0", "1", "2"]
    assert aborted == ["x", "y"]
    finals, aborted = some.core.abort(None)
    assert [final.request_id for final in finals] == ["3", "4"]
    assert aborted == ["mine-too"]
    some.run()
    some.scheduler.check()
    assert some.core.stats().page_usage == 0


def test_deadlines_pass_during_a_pause(engine: Any, request_of: Any) -> None:
    now_s = 100.0
    paused = engine(scheduling={"now": lambda: now_s})
    paused.core.submit(request_of("a", [1], 20, request={"deadline_s": 110.0}))
    paused.step()
    paused.core.pause(PauseMode.KEEP)
    paused.run()
    assert paused.core.idle_s() == 10.0
    now_s = 111.0
    (final,) = paused.core.sweep()
    assert final.finish_reason is FinishReason.ABORT
    assert "deadline" in final.error
    assert paused.core.idle_s() is None


def test_a_pause_is_not_restored_against_an_order(engine: Any) -> None:
    core = engine().core
    core.stay_paused()
    assert core.is_paused
    core.resume()
    core.stay_paused()  # another client, which has not heard of it
    assert not core.is_paused


def test_requests_are_no_work_while_the_engine_is_paused() -> None:
    now_s = 0.0
    progress = Progress(lambda: now_s)
    progress.ask(is_request=True)
    now_s = 5.0
    assert progress.waiting_s == 5
    progress.hear(EngineStats(is_paused=True))
    now_s = 100.0
    assert progress.waiting_s == 0
    progress.ask()  # to resume
    now_s = 103.0
    assert progress.waiting_s == 3
    progress.hear(EngineStats())
    progress.answer()
    now_s = 104.0
    assert progress.waiting_s == 1  # of the request again
    progress.answer(is_request=True)
    assert progress.waiting_s == 0
