"""The step contract: rows that follow, rows that are skipped, page moves."""

from typing import Any

import pytest

from leadline.engine.request import SamplingParams
from leadline.engine.step import (
    FOLLOWS,
    MoveKind,
    NewRequest,
    PageMove,
    ScheduledRow,
    SchedulerOutput,
)


def test_rows_after_the_last_token_are_skipped(bench: Any) -> None:
    """A step that was planned before the one that ended a request is known."""
    runner = bench.make_runner(2, speculates=True)
    short, long = SamplingParams(seed=1, max_tokens=1), SamplingParams(seed=2, max_tokens=9)
    new = [
        NewRequest(request_id=name, token_ids=[5, 6], num_prompt_tokens=2, params=params)
        for name, params in (("short", short), ("long", long))
    ]
    first = [
        ScheduledRow("short", 0, 2, [0, 1], 0, True, num_drafts=2),
        ScheduledRow("long", 0, 2, [2, 3], 0, True, num_drafts=2),
    ]
    output = runner.run(SchedulerOutput(0, new, first, [], 4))
    assert (output.num_tokens, output.num_context_tokens) == (4, 4)
    assert output.rows[0].num_drafts == 0, "nothing comes after the last token"
    num_drafts = output.rows[1].num_drafts
    follows = [ScheduledRow(name, FOLLOWS, 1, [], 2, True) for name in ("short", "long")]
    output = runner.run(SchedulerOutput(1, [], follows, [], 6))
    skipped, row = output.rows
    assert (skipped.is_skipped, skipped.token_ids, skipped.num_verified) == (True, [], 0)
    assert (row.is_skipped, row.num_verified) == (False, num_drafts)
    assert output.num_tokens == 1 + num_drafts
    assert output.num_context_tokens == 3 + num_drafts


def test_a_row_cannot_follow_one_that_did_not_sample(bench: Any) -> None:
    runner = bench.make_runner(1, speculates=False)
    params = SamplingParams(seed=1, max_tokens=3)
    new = NewRequest(request_id="0", token_ids=[5, 6, 7], num_prompt_tokens=3, params=params)
    row = ScheduledRow("0", 0, 1, [0, 1], 0, False)
    runner.run(SchedulerOutput(0, [new], [row], [], 1))
    follows = ScheduledRow("0", FOLLOWS, 1, [], 0, True)
    with pytest.raises(AssertionError, match="did not sample"):
        runner.run(SchedulerOutput(1, [], [follows], [], 1))


class FakeHostPages:
    """A tier whose place 8 is damaged."""

    def apply(self, moves: list[PageMove]) -> list[int]:
        return [move.host_id for move in moves if move.host_id == 8]


def test_page_moves_go_to_the_host_tier(bench: Any) -> None:
    moves = [PageMove(MoveKind.LOAD, 0, 8), PageMove(MoveKind.LOAD, 1, 9)]
    plan = SchedulerOutput(0, [], [], [], 0, page_moves=moves)
    runner = bench.make_runner(1, speculates=False)
    with pytest.raises(AssertionError, match="no host tier"):
        runner.run(plan)
    runner._host_pages = FakeHostPages()  # type: ignore[assignment]
    assert runner.run(plan).failed_loads == [8]
