"""What is planned, exactly, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.errors import InvalidRequestError, PromptTooLongError
from leadline.engine.request import FinishReason, RequestOutput
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import ModelOutput, RowOutput


class Script:
    """Drives a scheduler by hand; sampled tokens are given, page ids are not looked at."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def plan(self) -> list[tuple[str, int, int, int, bool]]:
        plan = self.scheduler.schedule()
        assert plan is not None
        self.current = plan
        self.step_ids = [*getattr(self, "step_ids", []), plan.step_id]
        return [
            (row.request_id, row.start, row.num_tokens, row.num_verify, row.samples)
            for row in plan.rows
        ]

    def update(self, *rows: RowOutput | list[int]) -> list[RequestOutput]:
        results = [row if isinstance(row, RowOutput) else RowOutput(row) for row in rows]
        return self.scheduler.update(ModelOutput(self.step_ids.pop(0), results, 0.0))


@pytest.fixture
def script(engine: Any) -> Callable[..., Script]:
    return lambda **options: Script(engine(num_drafts=3, **options).scheduler)


def test_trace_of_chunks_decodes_and_a_second_prompt(script: Any, request_of: Any) -> None:
    run = script(max_num_batched_tokens=8)
    run.scheduler.add(request_of("a", range(10), 3))
    assert run.plan() == [("a", 0, 8, 0, False)]
    assert len(run.current.new_requests) == 1
    assert len(run.current.rows[0].new_page_ids) == 3
    assert run.update([]) == []
    run.scheduler.add(request_of("b", range(20, 32), 2))
    assert run.plan() == [("a", 8, 2, 0, True), ("b", 0, 6, 0, False)]
    assert [o.token_ids for o in run.update([7], [])] == [[7]]
    assert run.plan() == [("a", 10, 1, 0, True), ("b", 6, 6, 0, True)]
    assert run.current.new_requests == []
    run.update([7], [5])
    assert run.plan() == [("a", 11, 1, 0, True), ("b", 12, 1, 0, True)]
    finals = run.update([7], [5])
    assert [o.finish_reason for o in finals] == [FinishReason.LENGTH, FinishReason.LENGTH]
    assert run.scheduler.has_work()
    assert run.plan() == []
    assert run.current.released_ids == ["a", "b"]
    run.update()
    assert not run.scheduler.has_work()


def test_trace_of_drafts_accepted_and_rolled_back(script: Any, request_of: Any) -> None:
    run = script()
    run.scheduler.add(request_of("a", range(5), 9))
    run.plan()
    run.update(RowOutput([10], num_drafts=3))
    assert run.plan() == [("a", 5, 1, 3, True)]
    assert run.update(RowOutput([11, 99], num_verified=3, num_accepted=1, num_drafts=2))[
        0
    ].token_ids == [11, 99]
    assert run.plan() == [("a", 7, 1, 2, True)]
    run.update(RowOutput([14, 15, 16], num_verified=2, num_accepted=2, num_drafts=3))
    assert run.plan() == [("a", 10, 1, 2, True)]  # three tokens are left to generate
    final = run.update(RowOutput([17, 18, 20], num_verified=2, num_accepted=2, num_drafts=1))[0]
    assert final.finish_reason is FinishReason.LENGTH


def test_drafts_use_what_the_rows_leave_of_the_budget(script: Any, request_of: Any) -> None:
    run = script(max_num_seqs=4, max_num_batched_tokens=6)
    for request_id in ("a", "b", "c"):
        run.scheduler.add(request_of(request_id, [1], 9))
    run.plan()
    run.update(*(RowOutput([5], num_drafts=2) for _ in range(3)))
    assert run.plan() == [
        ("a", 1, 1, 2, True),
        ("b", 1, 1, 1, True),
        ("c", 1, 1, 0, True),
    ]
    assert run.current.num_tokens == 6


def test_trace_of_preemption_and_return(script: Any, request_of: Any) -> None:
    run = script(num_pages=4, max_num_batched_tokens=16)
    run.scheduler.add(request_of("old", range(4), 9))
    run.scheduler.add(request_of("young", range(10, 18), 7))
    run.plan()
    run.update([1], [2])
    # Both need a page and one is left: the old one gets it, the young one goes.
    assert run.plan() == [("old", 4, 1, 0, True)]
    assert run.current.released_ids == ["young"]
    assert run.scheduler.stats().num_preemptions == 1
    run.update([1])
    for _ in range(7):
        assert [row[0] for row in run.plan()] == ["old"]
        finals = run.update([1])
    assert finals[0].finish_reason is FinishReason.LENGTH
    # The young one finds its own first page (the pages' ends were reclaimed first).
    rows = run.plan()
    assert rows[0][0] == "young"
    assert rows[0][1] + rows[0][2] == 9
    assert rows[0][1] > 0
    assert run.current.new_requests[0].token_ids == [*range(10, 18), 2]
    assert run.current.new_requests[0].num_prompt_tokens == 8


def test_decode_rows_come_before_an_older_prompt(script: Any, request_of: Any) -> None:
    run = script(max_num_batched_tokens=8)
    run.scheduler.add(request_of("long", range(100), 2))
    run.plan()
    run.update([])
    run.scheduler.add(request_of("a", [1], 5))
    # No budget is left over while the long prompt streams in: first come, first served.
    assert run.plan() == [("long", 8, 8, 0, False)]
    for _ in range(10):
        run.update([])
        run.plan()
    run.update([])
    assert run.plan() == [("long", 96, 4, 0, True), ("a", 0, 1, 0, True)]
    run.update([1], [2])
    run.scheduler.add(request_of("long2", range(200, 260), 2))
    assert [row[:3] for row in run.plan()] == [("long", 100, 1), ("a", 1, 1), ("long2", 0, 6)]


@pytest.mark.parametrize(
    ("tokens", "reason", "stop_token_id"),
    [
        ([11, 3], FinishReason.STOP, 3),
        ([11, 4], FinishReason.STOP, 4),
        ([11, 12, 3], FinishReason.STOP, 3),
        ([11, 12, 13], FinishReason.LENGTH, None),
    ],
)
def test_text_ends_at_the_completing_token(
    script: Any,
    request_of: Any,
    tokens: list[int],
    reason: FinishReason,
    stop_token_id: int | None,
) -> None:
    run = script()
    request = request_of("a", range(4), 4, eos_token_ids=(3,), stop_token_ids=(4,))
    run.scheduler.add(request)
    run.plan()
    run.update(RowOutput([9], num_drafts=2))
    run.plan()
    (final,) = run.update(RowOutput(tokens, num_verified=2, num_accepted=len(tokens) - 1))
    assert final.token_ids == tokens
    assert final.finish_reason is reason
    assert final.stop_token_id == stop_token_id
    assert run.scheduler.num_requests == 0


def test_ignore_eos_honours_stop_tokens_only(script: Any, request_of: Any) -> None:
    run = script()
    request = request_of(max_tokens=9, eos_token_ids=(3,), stop_token_ids=(4,), ignore_eos=True)
    run.scheduler.add(request)
    run.plan()
    assert run.update([3])[0].finish_reason is None
    run.plan()
    assert run.update([4])[0].stop_token_id == 4


def test_finish_in_flight_is_answered_at_once_and_keeps_the_pages(
    script: Any, request_of: Any
) -> None:
    run = script()
    run.scheduler.add(request_of("a", range(10), 5))
    run.plan()
    final = run.scheduler.finish("a", FinishReason.STOP)
    assert (final.finish_reason, final.token_ids) == (FinishReason.STOP, [])
    assert run.scheduler.finish("a", FinishReason.ABORT) is None
    assert run.scheduler.stats().page_usage > 0
    assert run.update([5]) == []
    assert run.scheduler.stats().page_usage == 0


def test_an_id_can_be_used_again_at_once(script: Any, request_of: Any) -> None:
    run = script()
    run.scheduler.add(request_of("a", range(10), 5))
    run.plan()
    run.scheduler.finish("a", FinishReason.ABORT)
    run.scheduler.add(request_of("a", range(20, 23), 5))
    assert run.update([5]) == []
    assert run.plan() == [("a", 0, 3, 0, True)]
    assert run.current.released_ids == ["a"]
    assert run.update([6])[0].token_ids == [6]


def test_a_row_error_ends_its_request_alone_and_hides_its_pages(
    script: Any, request_of: Any
) -> None:
    run = script(max_num_batched_tokens=14)
    run.scheduler.add(request_of("a", range(9), 5))
    run.scheduler.add(request_of("b", range(20, 29), 5))
    assert [row[:3] for row in run.plan()] == [("a", 0, 9), ("b", 0, 5)]
    run.update([1], [])
    assert [row[:3] for row in run.plan()] == [("a", 9, 1), ("b", 5, 4)]
    first, second = run.update(RowOutput([], error="NaN in the logits", is_corrupt=True), [1])
    stats = run.scheduler.stats()
    assert (stats.num_corrupted_requests, stats.num_corrupted_in_a_row) == (1, 0)  # b is well
    assert (first.finish_reason, first.error) == (FinishReason.ERROR, "NaN in the logits")
    assert second.finish_reason is None
    # What the failed request had committed before is not trusted either.
    run.scheduler.add(request_of("c", range(9), 5))
    run.scheduler.add(request_of("d", range(20, 29), 5))
    assert [row[:3] for row in run.plan()] == [("b", 9, 1), ("c", 0, 9), ("d", 8, 1)]


def test_drafts_of_a_preempted_request_are_forgotten(script: Any, request_of: Any) -> None:
    run = script(num_pages=4, max_num_batched_tokens=8, prefix_caching=False)
    run.scheduler.add(request_of("old", range(4), 4))
    run.scheduler.add(request_of("young", range(10, 18), 7))
    run.plan()
    run.update([1], [])
    run.plan()
    run.update([1], RowOutput([2], num_drafts=2))
    for _ in range(2):
        assert run.plan()[0][0] == "old"
        assert len(run.current.rows) == 1
        finals = run.update([1])
    assert finals[0].finish_reason is FinishReason.LENGTH
    assert run.plan() == [("young", 0, 8, 0, False)]
    run.update([])
    assert run.plan() == [("young", 8, 1, 0, True)]


def test_a_second_turn_hits_the_first_turns_answer(engine: Any, request_of: Any) -> None:
    run = engine()
    run.core.submit(request_of("a", range(6), 7))
    run.run()
    turn = [*range(6), *run.text("a"), 1, 2, 3]
    run.core.submit(request_of("b", turn, 2))
    run.run()
    assert run.outputs["a"][0].num_cached_tokens == 0
    assert run.outputs["b"][0].num_cached_tokens == 12
    stats = run.core.stats()
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (22, 12)
    assert (stats.prompt_tokens, stats.generation_tokens) == (22, 9)


@pytest.mark.parametrize(
    ("num_prompt_tokens", "max_tokens", "error", "numbers", "param"),
    [
        (0, 1, InvalidRequestError, ["1"], "prompt"),
        (1, 0, InvalidRequestError, ["0", "1"], "max_tokens"),
        (30, 11, PromptTooLongError, ["30", "11", "41", "40"], "max_tokens"),
        (40, 1, PromptTooLongError, ["41", "40"], "prompt"),
        (20, 13, PromptTooLongError, ["33", "9 pages of 4", "has 8"], "max_tokens"),
    ],
)
def test_refusals_name_the_numbers(
    script: Any,
    request_of: Any,
    num_prompt_tokens: int,
    max_tokens: int,
    error: Any,
    numbers: list[str],
    param: str,
) -> None:
    run = script(max_model_len=40, num_pages=8)
    with pytest.raises(error) as info:
        run.scheduler.add(request_of(prompt_ids=range(num_prompt_tokens), max_tokens=max_tokens))
    assert all(number in str(info.value) for number in numbers)
    assert info.value.param == param
    assert run.scheduler.num_requests == 0


def test_what_just_fits_is_taken(engine: Any, request_of: Any) -> None:
    run = engine(max_model_len=40, num_pages=8)
    run.core.submit(request_of(prompt_ids=range(20), max_tokens=12))
    run.run()
    assert len(run.text("a")) == 12


def test_a_living_id_is_refused(script: Any, request_of: Any) -> None:
    run = script()
    run.scheduler.add(request_of("a"))
    with pytest.raises(InvalidRequestError, match="'a' is in use"):
        run.scheduler.add(request_of("a"))
    assert run.scheduler.num_requests == 1
