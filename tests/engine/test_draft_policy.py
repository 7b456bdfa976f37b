"""The draft policy against known acceptances and costs."""

import random
from collections.abc import Sequence

import pytest

from leadline.engine.draft_policy import MIN_TIMED_STEPS, DraftPolicy, LinearCost
from leadline.engine.request import SpeculationCounts
from leadline.engine.step import ModelOutput, RowOutput, ScheduledRow, SchedulerOutput

NUM_STEPS = 400


def run(
    policy: DraftPolicy,
    *,
    acceptance: float | Sequence[float],
    draft_s: float,
    token_s: float,
    num_rows: int = 4,
) -> list[list[int]]:
    """Steps of a machine with these costs and this drafter (for each row, or one for all).

    Returns the depths that the policy chose, step by step, row by row.
    """
    rng = random.Random(0)
    odds = [acceptance] * num_rows if isinstance(acceptance, float) else list(acceptance)
    counts = [SpeculationCounts() for _ in range(num_rows)]
    chosen, pending = [], [0] * num_rows
    for step_id in range(NUM_STEPS):
        policy.begin_step(num_rows)
        depths = [policy.depth_of(counts[i]) for i in range(num_rows)]
        chosen.append(depths)
        rows, results = [], []
        for i in range(num_rows):
            num_accepted = 0
            while num_accepted < pending[i] and rng.random() < odds[i]:
                num_accepted += 1
            if pending[i]:
                counts[i].count(pending[i], num_accepted)
            rows.append(ScheduledRow(str(i), 10, 1, [], pending[i], True, depths[i]))
            results.append(RowOutput([7] * (num_accepted + 1), pending[i], num_accepted, depths[i]))
        num_tokens = num_rows + sum(pending)
        drafts_s = draft_s * max(depths)
        elapsed_s = 0.010 + token_s * num_tokens + drafts_s
        plan = SchedulerOutput(step_id, [], rows, [], num_tokens)
        output = ModelOutput(step_id, results, elapsed_s, drafts_s, sum(depths), num_tokens)
        policy.observe(plan, output)
        pending = depths
    return chosen


def settled(depths: list[list[int]], row: int | None = None) -> float:
    """Mean depth in the second half, of one row or of all."""
    late = [d for step in depths[NUM_STEPS // 2 :] for d in (step if row is None else [step[row]])]
    return sum(late) / len(late)


def test_good_and_cheap_drafts_go_deep() -> None:
    assert settled(run(DraftPolicy(3), acceptance=0.95, draft_s=0.0005, token_s=1e-5)) > 2.9


def test_bad_drafts_are_given_up() -> None:
    assert settled(run(DraftPolicy(3), acceptance=0.05, draft_s=0.005, token_s=1e-4)) < 0.3


def test_dear_verification_is_given_up() -> None:
    """When every token costs as much as a step, a draft never pays."""
    depths = run(DraftPolicy(3), acceptance=0.7, draft_s=0.002, token_s=0.05, num_rows=16)
    assert settled(depths) < 0.3


def test_depth_zero_still_probes() -> None:
    depths = run(DraftPolicy(2), acceptance=0.02, draft_s=0.01, token_s=1e-4)
    assert 0 < settled(depths) <= 1 / 16


def test_a_request_with_bad_drafts_of_its_own_goes_less_deep() -> None:
    """Three requests are easy to draft for, one is not: only the three go deep."""
    odds = [0.95, 0.95, 0.95, 0.1]
    depths = run(DraftPolicy(3), acceptance=odds, draft_s=0.001, token_s=0.002)
    assert settled(depths, row=0) > 1.5
    assert settled(depths, row=3) < 0.3


def test_chains_that_end_early_are_no_success() -> None:
    """A second draft that is seldom confident enough is worth little, however often it is right."""
    policy = DraftPolicy(2)
    row = ScheduledRow("a", 5, 1, [], 2, True, 2)
    for i in range(200):
        num_verified = 2 if i % 10 == 0 else 1
        result = RowOutput([7] * (num_verified + 1), num_verified, num_verified, num_verified)
        num_passes, num_tokens = 1 + i % 2, 2 + i % 2
        drafts_s = 0.004 * num_passes
        elapsed_s = 0.010 + 0.001 * num_tokens + drafts_s
        plan = SchedulerOutput(i, [], [row], [], 3)
        policy.observe(plan, ModelOutput(i, [result], elapsed_s, drafts_s, num_passes, num_tokens))
    assert policy.counts.num_accepted_per_pos == [200, 20]
    assert policy.begin_step(1) == 1


def test_fixed_depth() -> None:
    policy = DraftPolicy(2, adaptive=False)
    assert settled(run(policy, acceptance=0.0, draft_s=1.0, token_s=1.0)) == 2


def test_off() -> None:
    policy = DraftPolicy(0)
    assert settled(run(policy, acceptance=0.0, draft_s=0.0, token_s=1e-4)) == 0


def test_counts() -> None:
    policy = DraftPolicy(3, adaptive=False)
    row = ScheduledRow("a", 5, 1, [], 3, True, 3)
    for token_ids in ([1, 2, 9], [9], [1, 2, 3, 9]):
        plan = SchedulerOutput(0, [], [row], [], 4)
        policy.observe(plan, ModelOutput(0, [RowOutput(token_ids, 3, len(token_ids) - 1)], 0.01))
    counts = policy.counts
    assert (counts.num_drafts, counts.num_draft_tokens) == (3, 9)
    assert counts.num_accepted_per_pos == [2, 2, 1]


def test_starts_with_all_drafts_until_costs_are_known() -> None:
    depths = run(DraftPolicy(3), acceptance=0.0, draft_s=0.01, token_s=1e-3)
    assert depths[:MIN_TIMED_STEPS] == [[3] * 4] * MIN_TIMED_STEPS


@pytest.mark.parametrize("slope", [0.0, 0.002])
def test_linear_cost_recovers_a_line(slope: float) -> None:
    cost = LinearCost()
    assert cost.predict(3) == 0.0
    for size in [1, 2, 4, 8, 16] * 20:
        cost.add(size, 0.01 + slope * size)
    assert cost.predict(12) == pytest.approx(0.01 + slope * 12)
    assert cost.predict(0) >= 0
