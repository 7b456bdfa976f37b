"""Steps that are planned while the step before them runs."""

from typing import Any

import pytest

from leadline.engine.request import FinishReason
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import FOLLOWS, ModelOutput, RowOutput, SchedulerOutput


class Pipeline:
    """Plans ahead by hand."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.plans: list[SchedulerOutput] = []

    def plan(self) -> list[tuple[str, int, int, int]]:
        plan = self.scheduler.schedule()
        assert plan is not None
        self.plans.append(plan)
        return [(row.request_id, row.start, row.num_tokens, row.num_verify) for row in plan.rows]

    def update(self, *rows: RowOutput) -> list[Any]:
        plan = self.plans.pop(0)
        return self.scheduler.update(ModelOutput(plan.step_id, list(rows), 0.0))


@pytest.fixture
def pipeline(engine: Any) -> Any:
    return lambda **options: Pipeline(engine(num_drafts=2, **options).scheduler)


def test_rows_follow_the_step_in_flight(pipeline: Any, request_of: Any) -> None:
    run = pipeline(max_num_batched_tokens=8)
    run.scheduler.add(request_of("a", range(10), 20))
    assert run.plan() == [("a", 0, 8, 0)]
    assert run.plan() == [("a", 8, 2, 0)]  # the chunk after a chunk is known exactly
    run.update(RowOutput([]))
    assert run.plan() == [("a", FOLLOWS, 1, 2)]  # what it samples and drafts is not
    assert run.update(RowOutput([50], num_drafts=1))[0].token_ids == [50]
    assert run.plan() == [("a", FOLLOWS, 1, 2)]
    assert run.update(RowOutput([51, 52], num_verified=1, num_accepted=1, num_drafts=2))[
        0
    ].token_ids == [51, 52]
    run.scheduler.check()


def test_slots_are_reserved_for_full_acceptance(pipeline: Any, request_of: Any) -> None:
    """Two steps of two drafts each, and two drafts after them, all of which may be right."""
    run = pipeline(page_size=1, num_pages=40)
    run.scheduler.add(request_of("a", range(3), 30))
    run.plan()
    run.update(RowOutput([50], num_drafts=2))
    run.plan()
    run.plan()
    num_slots = sum(len(row.new_page_ids) for plan in run.plans for row in plan.rows) + 3
    assert num_slots == 3 + (1 + 2) + (1 + 2) + 2


def test_nothing_is_planned_after_what_is_surely_the_last_token(
    pipeline: Any, request_of: Any
) -> None:
    run = pipeline()
    run.scheduler.add(request_of("a", range(3), 2))
    run.plan()
    assert run.plan() == [("a", FOLLOWS, 1, 0)]
    run.update(RowOutput([50]))
    assert run.scheduler.schedule() is None
    assert run.update(RowOutput([51]))[0].finish_reason is FinishReason.LENGTH


def test_a_row_of_an_ended_request_is_skipped_and_its_pages_wait(
    pipeline: Any, request_of: Any
) -> None:
    run = pipeline()
    run.scheduler.add(request_of("a", range(3), 9, eos_token_ids=(7,)))
    run.plan()
    run.plan()
    assert run.update(RowOutput([7]))[0].finish_reason is FinishReason.STOP
    assert run.scheduler.stats().page_usage > 0
    assert run.update(RowOutput([], is_skipped=True)) == []
    assert run.scheduler.stats().page_usage == 0


def test_whoever_needs_a_page_waits_for_the_step_in_flight(pipeline: Any, request_of: Any) -> None:
    run = pipeline(num_pages=4, page_size=4, max_num_batched_tokens=16)
    run.scheduler.add(request_of("old", range(4), 9, speculative_tokens=0))
    run.scheduler.add(request_of("young", range(10, 18), 7, speculative_tokens=0))
    assert [row[0] for row in run.plan()] == ["old", "young"]
    assert [row[0] for row in run.plan()] == ["old"]  # one page is left, and it is the old one's
    run.update(RowOutput([1]), RowOutput([2]))
    assert run.scheduler.schedule() is None  # with a step in flight nobody is preempted
    run.update(RowOutput([1]))
    assert [row[0] for row in run.plan()] == ["old"]
    assert run.plans[-1].released_ids == ["young"]
    run.scheduler.check()


@pytest.mark.parametrize("max_steps", [1, 2])
def test_the_text_is_the_same(engine: Any, request_of: Any, max_steps: int) -> None:
    def texts(max_steps: int) -> list[list[int]]:
        run = engine(
            max_steps=max_steps, num_drafts=2, draft_acceptance=0.6, num_pages=24, max_num_seqs=5
        )
        for i in range(12):
            run.core.submit(request_of(str(i), range(i, i + 9), 20, eos_token_ids=(3,), seed=i))
        run.run()
        return [run.text(str(i)) for i in range(12)]

    assert texts(max_steps) == texts(1)


def test_two_steps_are_in_flight(engine: Any, request_of: Any) -> None:
    run = engine()
    run.core.submit(request_of("a", range(3), 9))
    run.core.start_steps()
    assert run.core.num_steps_in_flight == 2
