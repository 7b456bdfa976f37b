"""Running requests keep their latency while prompts stream in."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.clock import VirtualClock
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.prefill_share import (
    COLD_PROMPT_TOKENS,
    MIN_PROMPT_TOKENS,
    PrefillShare,
    PromptWait,
)
from leadline.engine.step_cost import MIN_STEPS, StepCost, StepSize

FIXED_S, TOKEN_S = 0.010, 0.0005
BUDGET = 512


def known(**targets: float) -> PrefillShare:
    """A share that has seen steps of known cost."""
    share = PrefillShare(BUDGET, **targets)
    dice = random.Random(0)
    for _ in range(64):
        num_tokens = dice.randint(1, BUDGET)
        share.cost.add(StepSize(num_tokens), FIXED_S + TOKEN_S * num_tokens)
    return share


def test_costs_are_recovered() -> None:
    dice, cost = random.Random(1), StepCost()
    true = lambda size: 0.004 + 2e-4 * size[0] + 3e-7 * size[1] + 1e-3 * size[2]  # noqa: E731
    for _ in range(200):
        size = StepSize(dice.randint(1, 600), dice.randint(0, 40_000), dice.randint(0, 8))
        cost.add(size, true(size) * dice.uniform(0.97, 1.03))
    for size in (StepSize(10, 500, 2), StepSize(500, 30_000, 0)):
        assert cost.predict(size) == pytest.approx(true(size), rel=0.1)


def test_rates_are_never_negative() -> None:
    """Steps that were quicker the more they had to do teach no negative rate."""
    cost = StepCost()
    for num_tokens in range(1, 40):
        cost.add(StepSize(num_tokens, 40 - num_tokens), 1.0 / num_tokens)
    assert cost.per_token_s >= 0
    assert cost.per_pair_s >= 0
    assert cost.predict(StepSize(1000)) >= 0


def test_no_target_no_limit() -> None:
    share = known()
    assert share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)]) == BUDGET


def test_the_step_stays_within_the_target() -> None:
    share = known(target_itl_s=0.050)
    num_tokens = share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)])
    assert num_tokens == pytest.approx((0.050 - FIXED_S) / TOKEN_S - 8, abs=4)


def test_prompts_never_stand_still() -> None:
    share = known(target_itl_s=0.001)
    assert share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)]) == MIN_PROMPT_TOKENS


def test_without_running_requests_prompts_get_everything() -> None:
    assert known(target_itl_s=0.011).num_tokens(StepSize(0), [PromptWait(9, 0.0)]) == BUDGET


def test_prompts_get_little_until_costs_are_known() -> None:
    share = PrefillShare(BUDGET, target_itl_s=1000.0)
    relaxed = PrefillShare(BUDGET, target_ttft_s=1.0)
    for _ in range(MIN_STEPS - 1):
        for known in (share, relaxed):
            known.cost.add(StepSize(5), 1.0)
        assert share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)]) == COLD_PROMPT_TOKENS
        assert relaxed.num_tokens(StepSize(8), [PromptWait(1000, 0.0)]) == BUDGET
    share.cost.add(StepSize(5), 1.0)
    assert share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)]) == BUDGET


def test_prompts_get_no_more_than_their_target_needs() -> None:
    share = known(target_ttft_s=2.0)
    relaxed = share.num_tokens(StepSize(8), [PromptWait(1000, 0.0)])
    urgent = share.num_tokens(StepSize(8), [PromptWait(1000, 0.8)])
    late = share.num_tokens(StepSize(8), [PromptWait(1000, 1.9)])
    assert MIN_PROMPT_TOKENS <= relaxed < urgent < late == BUDGET
    # With the relaxed share the prompt is done in time, by the known costs.
    steps = -(-1000 // relaxed)
    assert steps * (FIXED_S + TOKEN_S * (8 + relaxed)) < 2.0


def test_running_requests_win_where_both_targets_exclude_each_other() -> None:
    share = known(target_itl_s=0.030, target_ttft_s=0.1)
    num_tokens = share.num_tokens(StepSize(8), [PromptWait(5000, 0.0)])
    assert FIXED_S + TOKEN_S * (8 + num_tokens) <= 0.031


def gaps_and_ttft(
    engine: Callable[..., Any], request_of: Callable[..., Any], **targets: float
) -> tuple[list[float], list[float]]:
    """A fixed trace: eight chats run while long prompts keep coming.

    Returns the chats' gaps between tokens once costs are known, and the prompts' first tokens'
    times from arrival.
    """
    clock = VirtualClock(1000.0)
    run = engine(
        num_pages=4000,
        max_model_len=2000,
        max_num_seqs=64,
        max_num_batched_tokens=BUDGET,
        clock=clock,
        step_time=StepTimeModel(fixed_s=FIXED_S, per_token_s=TOKEN_S),
        scheduling={"prefill_share": PrefillShare(BUDGET, **targets), "now": clock.now},
        max_steps=1,
    )
    for i in range(8):
        run.core.submit(request_of(f"chat{i}", [i + 1] * 3, 190))
    gaps: list[float] = []
    last: dict[str, float] = {}
    arrived: dict[str, float] = {}
    first: dict[str, float] = {}
    num_steps = 0
    while run.core.has_work():
        if num_steps % 25 == 5 and len(arrived) < 6:
            name = f"document{len(arrived)}"
            arrived[name] = clock.now()
            prompt = [len(arrived) + 1] * 1500
            extra = {"arrival_s": clock.now()}
            run.core.submit(request_of(name, prompt, 2, request=extra))
        for output in run.core.step():
            name = output.request_id
            if name in arrived:
                first.setdefault(name, clock.now() - arrived[name])
            elif num_steps > 3 * MIN_STEPS:
                gaps.append(clock.now() - last[name])
            last[name] = clock.now()
        num_steps += 1
    assert len(first) == 6
    return gaps, list(first.values())


def test_decode_never_starves_on_a_fixed_trace(engine: Any, request_of: Any) -> None:
    free, _ = gaps_and_ttft(engine, request_of)
    kept, _ = gaps_and_ttft(engine, request_of, target_itl_s=0.050)
    assert max(free) > 0.25
    assert max(kept) < 0.052


def test_both_targets_on_a_fixed_trace(engine: Any, request_of: Any) -> None:
    """Prompts meet their target, and running requests are quicker than without one."""
    free, _ = gaps_and_ttft(engine, request_of)
    gaps, ttft = gaps_and_ttft(engine, request_of, target_ttft_s=4.0)
    assert max(ttft) < 4.0
    assert max(gaps) < max(free)
