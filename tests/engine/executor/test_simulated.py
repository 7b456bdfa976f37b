"""The simulated executor notices every breach of the step contract."""

from collections.abc import Sequence

import pytest

from leadline.engine.clock import VirtualClock
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.simulated import SimulatedExecutor
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.request import SamplingParams
from leadline.engine.step import (
    FOLLOWS,
    MoveKind,
    NewRequest,
    PageMove,
    ScheduledRow,
    SchedulerOutput,
)

CAPACITY = Capacity(num_pages=8, page_size=2, max_model_len=12, max_num_seqs=2, num_host_pages=2)


def new(request_id: str, token_ids: Sequence[int], max_tokens: int = 9) -> NewRequest:
    return NewRequest(
        request_id=request_id,
        token_ids=list(token_ids),
        num_prompt_tokens=len(token_ids),
        params=SamplingParams(seed=0, max_tokens=max_tokens),
    )


def row(
    request_id: str,
    start: int,
    num_tokens: int,
    pages: Sequence[int] = (),
    num_verify: int = 0,
    samples: bool = True,
    num_drafts: int = 2,
) -> ScheduledRow:
    return ScheduledRow(request_id, start, num_tokens, list(pages), num_verify, samples, num_drafts)


def plan(
    *rows: ScheduledRow,
    new_requests: Sequence[NewRequest] = (),
    released: Sequence[str] = (),
) -> SchedulerOutput:
    num_tokens = sum(r.num_tokens + r.num_verify for r in rows)
    return SchedulerOutput(0, list(new_requests), list(rows), list(released), num_tokens)


def moving(*moves: PageMove) -> SchedulerOutput:
    return SchedulerOutput(0, [], [], [], 0, list(moves))


@pytest.fixture
def executor() -> SimulatedExecutor:
    """Holds request `a`: tokens 1, 2, 3 and one sampled, in pages 5 and 6."""
    executor = SimulatedExecutor(CAPACITY, draft_acceptance=1.0)
    executor.execute(plan(row("a", 0, 3, [5, 6]), new_requests=[new("a", [1, 2, 3])])).result()
    return executor


GOOD = {
    "next token": plan(row("a", 3, 1)),
    "released and begun anew": plan(
        row("a", 0, 3, [0, 1]), new_requests=[new("a", [1, 2, 3])], released=["a"]
    ),
    "cached page": plan(row("b", 2, 1, [5, 1]), new_requests=[new("b", [1, 2, 9])]),
    "nothing": plan(),
    "following": plan(row("a", FOLLOWS, 1)),
    "drafts": plan(row("a", 3, 1, [7], num_verify=2)),
    "a full page": moving(PageMove(MoveKind.STORE, 5, 0), PageMove(MoveKind.LOAD, 7, 0)),
}
BAD = {
    "gap": plan(row("a", 4, 1)),
    "again": plan(row("a", 2, 1)),
    "no page": plan(row("b", 0, 3, [1]), new_requests=[new("b", [1, 2, 3])]),
    "page out of range": plan(row("b", 0, 1, [8]), new_requests=[new("b", [1])]),
    "page twice": plan(row("b", 0, 3, [1, 1]), new_requests=[new("b", [1, 2, 3])]),
    "written by two": plan(row("b", 0, 1, [6]), new_requests=[new("b", [1])]),
    "stale page": plan(row("b", 2, 1, [0, 1]), new_requests=[new("b", [1, 2, 9])]),
    "foreign page": plan(row("b", 2, 1, [5, 1]), new_requests=[new("b", [1, 4, 9])]),
    "not held": plan(row("b", 0, 1, [1])),
    "held already": plan(row("a", 0, 1, [1]), new_requests=[new("a", [1])]),
    "not new, not held": plan(released=["b"]),
    "used after release": plan(row("a", 3, 1), released=["a"]),
    "new without a row": plan(new_requests=[new("b", [1])]),
    "two rows": plan(row("a", 3, 1), row("a", 3, 1)),
    "wrong samples": plan(row("a", 3, 1, samples=False)),
    "unknown tokens": plan(row("a", 3, 2, [7])),
    "follows nothing": plan(row("b", FOLLOWS, 1, [7]), new_requests=[new("b", [1])]),
    "follows without sampling": plan(row("a", FOLLOWS, 1, samples=False)),
    "drafts before the last token": plan(
        row("b", 0, 1, [7, 1], num_verify=1, samples=False), new_requests=[new("b", [1, 2])]
    ),
    "drafts beyond the pages": plan(row("a", 3, 1, num_verify=2)),
    "nothing in the host tier": moving(PageMove(MoveKind.LOAD, 1, 0)),
    "no such place": moving(PageMove(MoveKind.STORE, 5, 3)),
    "a page that is not full": moving(PageMove(MoveKind.STORE, 6, 0)),
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_good_plans_pass(executor: SimulatedExecutor, good: SchedulerOutput) -> None:
    output = executor.execute(good).result()
    assert len(output.rows) == len(good.rows)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_plans_are_noticed(executor: SimulatedExecutor, bad: SchedulerOutput) -> None:
    assert isinstance(executor.execute(bad).exception(), AssertionError)


def test_a_wrong_sum_and_too_many_rows_are_noticed(executor: SimulatedExecutor) -> None:
    wrong_sum = plan(row("a", 3, 1))
    wrong_sum.num_tokens = 2
    assert "num_tokens" in str(executor.execute(wrong_sum).exception())
    many = plan(
        row("a", 3, 1),
        row("b", 0, 1, [1]),
        row("c", 0, 1, [2]),
        new_requests=[new("b", [1]), new("c", [1])],
    )
    assert "too many rows" in str(executor.execute(many).exception())


def test_drafts_are_right_as_often_as_asked() -> None:
    def num_accepted(acceptance: float) -> int:
        executor = SimulatedExecutor(
            Capacity(num_pages=200, page_size=8, max_model_len=1600, max_num_seqs=1),
            draft_acceptance=acceptance,
        )
        output = executor.execute(
            plan(row("a", 0, 1, range(200), num_drafts=1), new_requests=[new("a", [1], 1500)])
        ).result()
        accepted = 0
        for _ in range(400):
            output = executor.execute(
                plan(row("a", FOLLOWS, 1, num_verify=1, num_drafts=1))
            ).result()
            assert output.rows[0].num_verified == output.rows[0].num_drafts == 1
            accepted += len(output.rows[0].token_ids) - 1
        return accepted

    assert num_accepted(0.0) == 0
    assert num_accepted(1.0) == 400
    assert 240 <= num_accepted(0.7) <= 320


def test_a_failed_row_leaves_garbage() -> None:
    executor = SimulatedExecutor(CAPACITY, fault=lambda row, start: "NaN" if start == 0 else None)
    first = plan(row("a", 0, 2, [5], samples=False), new_requests=[new("a", [1, 2, 3])])
    assert executor.execute(first).result().rows[0].error == "NaN"
    second = plan(row("b", 2, 1, [5, 1]), new_requests=[new("b", [1, 2, 3])], released=["a"])
    assert "stale" in str(executor.execute(second).exception())


def test_time_is_what_the_model_says() -> None:
    clock = VirtualClock()
    step_time = StepTimeModel(fixed_s=1.0, per_token_s=0.1, per_context_token_s=0.01)
    executor = SimulatedExecutor(CAPACITY, clock=clock, step_time=step_time)
    first = plan(row("a", 0, 3, [5, 6]), new_requests=[new("a", [1, 2, 3])])
    assert executor.execute(first).result().elapsed_s == pytest.approx(1.33)
    executor.execute(plan())
    executor.execute(plan(row("a", 3, 1)))
    assert clock.now() == pytest.approx(1.33 + 1.14)


def test_close_forgets_every_request(executor: SimulatedExecutor) -> None:
    executor.close()
    assert executor.num_held == 0


def test_a_request_that_has_ended_is_skipped() -> None:
    executor = SimulatedExecutor(CAPACITY)
    first = plan(row("a", 0, 3, [5, 6]), new_requests=[new("a", [1, 2, 3], max_tokens=1)])
    assert len(executor.execute(first).result().rows[0].token_ids) == 1
    output = executor.execute(plan(row("a", FOLLOWS, 1, num_verify=0))).result()
    assert output.rows[0].is_skipped
    assert output.num_tokens == 0


def test_damage_is_reported_and_leaves_garbage() -> None:
    executor = SimulatedExecutor(CAPACITY, damage=lambda host_id: host_id == 1)
    first = plan(row("a", 0, 3, [5, 6]), new_requests=[new("a", [1, 2, 3])])
    executor.execute(first)
    stored = moving(*(PageMove(MoveKind.STORE, 5, host_id) for host_id in (0, 1)))
    assert executor.execute(stored).result().failed_loads == []
    loaded = moving(PageMove(MoveKind.LOAD, 2, 0), PageMove(MoveKind.LOAD, 3, 1))
    assert executor.execute(loaded).result().failed_loads == [1]
    good = plan(row("b", 2, 1, [2, 1]), new_requests=[new("b", [1, 2, 3])])
    executor.execute(good).result()
    bad = plan(row("c", 2, 1, [3, 4]), new_requests=[new("c", [1, 2, 3])])
    assert "stale" in str(executor.execute(bad).exception())
