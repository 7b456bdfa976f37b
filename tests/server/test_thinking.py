import pytest

from leadline.engine.request import ThinkingLimit
from leadline.server.errors import BadRequestError
from leadline.server.thinking import EFFORT_BUDGETS, ThinkingCounter, limit_thinking

TOKENS = ThinkingLimit(begin_id=1, end_id=2)


@pytest.mark.parametrize(
    ("asked", "max_tokens", "budget"),
    [
        (10, 100, 10),
        (75, 100, 75),
        (76, 100, 75),
        (10**12, 4, 2),
        (10**12, 3, 1),
        (5, 2, 0),
        (5, 1, 0),
        (0, 100, 0),
    ],
)
def test_a_budget_leaves_room_for_an_answer(asked: int, max_tokens: int, budget: int) -> None:
    limit = limit_thinking(TOKENS, asked, max_tokens, param="thinking_token_budget")
    assert limit == ThinkingLimit(begin_id=1, end_id=2, budget=budget)


def test_without_a_budget_the_tokens_are_told_all_the_same() -> None:
    assert limit_thinking(TOKENS, None, 10, param=None) == TOKENS
    assert limit_thinking(TOKENS, None, 10, param="reasoning_effort") == TOKENS
    assert limit_thinking(None, None, 10, param=None) is None


@pytest.mark.parametrize(
    ("param", "budget"),
    [("thinking_token_budget", 0), ("reasoning_effort", 512), ("reasoning_effort", None)],
)
def test_a_model_that_does_not_mark_thinking(param: str, budget: int | None) -> None:
    with pytest.raises(BadRequestError, match="<think> and </think>") as caught:
        limit_thinking(None, budget, 10, param=param)
    assert caught.value.param == param
    assert limit_thinking(None, 0, 10, param="reasoning_effort") is None


def test_more_effort_is_a_larger_budget() -> None:
    budgets = list(EFFORT_BUDGETS.values())
    assert budgets[-1] is None
    limited = [budget for budget in budgets if budget is not None]
    assert limited[0] == 0
    assert limited == sorted(set(limited))


@pytest.mark.parametrize(
    ("prompt_ids", "token_ids", "count"),
    [
        ([5], [5, 5], 0),
        ([5, 1], [5, 5, 2, 5], 2),
        ([1, 5], [5, 2], 1),
        ([1, 5, 2], [5], 0),
        ([], [1, 5, 5, 5], 3),
        ([], [2, 5], 0),
        ([1], [1, 5, 2, 1, 5], 2),
    ],
)
def test_tokens_between_the_marks_are_counted(
    prompt_ids: list[int], token_ids: list[int], count: int
) -> None:
    counter = ThinkingCounter(TOKENS, prompt_ids)
    for token_id in token_ids:
        counter.push(token_id)
    assert counter.num_tokens == count
