"""What the worker holds of each request follows the plans."""

import pytest

from leadline.engine.request import SamplingParams
from leadline.engine.step import FOLLOWS, NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.requests import HeldRequests

PARAMS = SamplingParams(seed=3, max_tokens=9)


def new_request(request_id: str, token_ids: list[int]) -> NewRequest:
    return NewRequest(
        request_id=request_id, token_ids=token_ids, num_prompt_tokens=len(token_ids), params=PARAMS
    )


def row(request_id: str, start: int, num_tokens: int, new_page_ids: list[int]) -> ScheduledRow:
    return ScheduledRow(request_id, start, num_tokens, new_page_ids, 0, True)


def plan(
    new: list[NewRequest], rows: list[ScheduledRow], released_ids: list[str]
) -> SchedulerOutput:
    return SchedulerOutput(0, new, rows, released_ids, sum(row.num_tokens for row in rows))


@pytest.fixture
def held() -> HeldRequests:
    """Two requests after their first step."""
    held = HeldRequests(vocab_size=50)
    first = [row("a", 0, 3, [7, 2]), row("b", 0, 1, [5])]
    held.apply(plan([new_request("a", [1, 2, 3]), new_request("b", [4])], first, []))
    return held


def test_takes_new_requests(held: HeldRequests) -> None:
    assert len(held) == 2
    assert held["a"].token_ids == [1, 2, 3]
    assert held["a"].page_ids == [7, 2]
    assert held["a"].params == PARAMS
    assert held["b"].page_ids == [5]


def test_extends_page_tables_in_order(held: HeldRequests) -> None:
    held.apply(plan([], [row("b", 1, 1, []), row("a", 3, 1, [0, 9])], []))
    assert held["a"].page_ids == [7, 2, 0, 9]
    assert held["b"].page_ids == [5]


def test_drops_released_requests(held: HeldRequests) -> None:
    held.apply(plan([], [row("b", 1, 1, [])], ["a"]))
    assert len(held) == 1
    with pytest.raises(KeyError):
        held["a"]


def test_forgets_what_it_never_held(held: HeldRequests) -> None:
    """A request may be released before its first row has come."""
    held.apply(plan([], [], ["never"]))
    assert len(held) == 2


def test_preempted_request_begins_anew(held: HeldRequests) -> None:
    """Released and new in the same plan: the pages are those of the new row alone."""
    again = new_request("a", [1, 2, 3, 8])
    held.apply(plan([again], [row("a", 0, 4, [4])], ["a"]))
    assert held["a"].token_ids == [1, 2, 3, 8]
    assert held["a"].page_ids == [4]


def test_tokens_are_its_own(held: HeldRequests) -> None:
    """The scheduler's list does not grow when the worker's does."""
    tokens = [1, 2]
    held.apply(plan([new_request("c", tokens)], [row("c", 0, 2, [1])], []))
    held["c"].token_ids.append(3)
    assert tokens == [1, 2]


def test_a_row_that_follows_begins_where_the_step_before_ended(held: HeldRequests) -> None:
    held["a"].num_computed_tokens, held["a"].draft_ids = 3, [8, 9]
    held["a"].token_ids.append(7)
    follows = ScheduledRow("a", FOLLOWS, 1, [], 1, True)
    (live,) = held.live_rows(plan([], [follows], []))
    assert (live.start, live.draft_ids, live.token_ids) == (3, [8], [7, 8])


def test_no_more_drafts_are_verified_than_tokens_are_wanted(held: HeldRequests) -> None:
    held["a"].num_computed_tokens, held["a"].draft_ids = 10, [8, 9]
    held["a"].token_ids += [7] * 8  # one is left of nine
    follows = ScheduledRow("a", FOLLOWS, 1, [], 2, True)
    (live,) = held.live_rows(plan([], [follows], []))
    assert live.draft_ids == []


def test_rows_of_ended_requests_are_left_out(held: HeldRequests) -> None:
    assert held["a"].cut([5, 6]) == [5, 6]
    held["a"].token_ids += [7] * 8
    assert held["a"].cut([5, 6]) == [5]
    rows = [row("a", 11, 1, []), row("b", 0, 1, [])]
    assert [live.index for live in held.live_rows(plan([], rows, []))] == [1]
