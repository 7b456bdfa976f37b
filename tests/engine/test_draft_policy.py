"""The draft policy against known acceptances and costs."""

import random

import pytest

from leadline.engine.draft_policy import MIN_TIMED_STEPS, DraftPolicy, LinearCost
from leadline.engine.step import ModelOutput, RowOutput, ScheduledRow, SchedulerOutput

NUM_STEPS = 400


def run(
    policy: DraftPolicy, *, acceptance: float, draft_s: float, token_s: float, num_rows: int = 4
) -> list[int]:
    """Steps of a machine with these costs and this drafter; the depths that the policy chose."""
    rng = random.Random(0)
    depths, pending = [], 0
    for step_id in range(NUM_STEPS):
        depth = policy.depth(num_rows)
        depths.append(depth)
        rows, results = [], []
        for i in range(num_rows):
            num_accepted = 0
            while num_accepted < pending and rng.random() < acceptance:
                num_accepted += 1
            rows.append(ScheduledRow(str(i), 10, 1 + pending, [], [7] * pending, True, depth))
            results.append(RowOutput(token_ids=[7] * (num_accepted + 1), draft_ids=[7] * depth))
        num_tokens = num_rows * (1 + pending)
        drafts_s = draft_s * depth
        elapsed_s = 0.010 + token_s * num_tokens + drafts_s
        plan = SchedulerOutput(step_id, [], rows, [], num_tokens)
        policy.observe(plan, ModelOutput(step_id, results, elapsed_s, drafts_s))
        pending = depth
    return depths


def settled(depths: list[int]) -> float:
    late = depths[NUM_STEPS // 2 :]
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
    late = depths[NUM_STEPS // 2 :]
    assert 0 < sum(late) <= len(late) / 16


def test_fixed_depth() -> None:
    policy = DraftPolicy(2, adaptive=False)
    assert set(run(policy, acceptance=0.0, draft_s=1.0, token_s=1.0)) == {2}


def test_off() -> None:
    policy = DraftPolicy(0)
    assert set(run(policy, acceptance=0.0, draft_s=0.0, token_s=1e-4)) == {0}


def test_counts() -> None:
    policy = DraftPolicy(3, adaptive=False)
    row = ScheduledRow("a", 5, 4, [], [1, 2, 3], True, 3)
    for token_ids in ([1, 2, 9], [9], [1, 2, 3, 9]):
        plan = SchedulerOutput(0, [], [row], [], 4)
        policy.observe(plan, ModelOutput(0, [RowOutput(token_ids=token_ids)], 0.01))
    counts = policy.counts
    assert (counts.num_drafts, counts.num_draft_tokens) == (3, 9)
    assert counts.num_accepted_per_pos == [2, 2, 1]


def test_starts_with_all_drafts_until_costs_are_known() -> None:
    depths = run(DraftPolicy(3), acceptance=0.0, draft_s=0.01, token_s=1e-3)
    assert depths[:MIN_TIMED_STEPS] == [3] * MIN_TIMED_STEPS


@pytest.mark.parametrize("slope", [0.0, 0.002])
def test_linear_cost_recovers_a_line(slope: float) -> None:
    cost = LinearCost()
    assert cost.predict(3) == 0.0
    for size in [1, 2, 4, 8, 16] * 20:
        cost.add(size, 0.01 + slope * size)
    assert cost.predict(12) == pytest.approx(0.01 + slope * 12)
    assert cost.predict(0) >= 0
