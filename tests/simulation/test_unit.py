"""Simulated units: every request is answered, whatever happens, and routing is worth it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulate import Setting, simulate, step_time
from benchmarks.simulation.expert_skew import ExpertSkew
from benchmarks.simulation.trial import Loss, Trial
from benchmarks.simulation.unit import SimulatedUnit
from benchmarks.simulation.workload import ChatWorkload, Session, Turn, read_trace
from leadline.engine.errors import ConfigError
from leadline.engine.executor.base import Capacity
from leadline.engine.expert_balance.placement import ExpertLayout
from leadline.engine.request import SamplingParams

CAPACITY = Capacity(num_pages=200, page_size=16, max_model_len=2000, max_num_seqs=8)


def seconds(rows: list[list[tuple[int, int]]], num_drafts: int) -> float:
    return 0.01 + 1e-5 * max(sum(new for new, _ in own) for own in rows)


def make_unit(policy: str = "prefix", num_drafts: int = 0, **options: Any) -> SimulatedUnit:
    return SimulatedUnit(
        4,
        CAPACITY,
        seconds,
        policy=policy,
        max_num_batched_tokens=256,
        num_drafts=num_drafts,
        **options,
    )


def workload(seed: int = 0) -> list[Session]:
    sessions = ChatWorkload(
        requests_s=20,
        duration_s=4,
        system_tokens=160,
        input_tokens=32,
        output_tokens=24,
        think_s=0.5,
        seed=seed,
    ).sessions()
    return [s for s in sessions if sum(len(t.new_ids) for t in s.turns) < 1000]


class Texts:
    """What each request was told."""

    def __init__(self) -> None:
        self.texts: dict[str, list[int]] = {}

    def on_output(self, request_id: str, output: Any, now_s: float) -> None:
        self.texts.setdefault(request_id, []).extend(output.token_ids)


def answered(unit: SimulatedUnit, lose: bool) -> dict[str, list[int]]:
    """Twelve requests, with the death of a rank in between or without."""
    listener = Texts()
    for i in range(12):
        params = SamplingParams(seed=i, max_tokens=20 + i, ignore_eos=True)
        unit.submit(str(i), [i] * (30 + i), params)
    num_steps = 0
    while unit.has_work():
        unit.step(listener)
        num_steps += 1
        if lose and num_steps == 6:
            unit.lose(1, 2.0)
    return listener.texts


def test_text_is_the_same_with_drafts_and_when_a_rank_dies() -> None:
    want = answered(make_unit(), lose=False)
    assert [len(want[str(i)]) for i in range(12)] == [20 + i for i in range(12)]
    assert answered(make_unit(), lose=True) == want
    unit = make_unit(num_drafts=2, draft_acceptance=0.7)
    assert answered(unit, lose=True) == want
    assert unit.counts.num_resumed == 3
    assert unit.clock.now() > 2.0


@pytest.mark.parametrize("policy", ["prefix", "least-loaded", "round-robin"])
def test_every_request_is_answered(policy: str) -> None:
    sessions = workload()
    num_turns = sum(len(session.turns) for session in sessions)
    skewed = []
    trial = Trial(make_unit(policy), iter(sessions), Loss(2, 1.0, 0.5, skewed.append))
    trial.run(1000)
    assert trial.seen.num_requests == num_turns > 20
    assert len(trial.seen.ttft_s) == num_turns
    assert skewed == [2]
    assert min(trial.seen.ttft_s) > 0
    assert trial.percentiles("itl_s")["p50"] >= 0.01


def test_the_prefix_policy_finds_more_and_waits_less() -> None:
    seen = {}
    for policy in ("prefix", "round-robin"):
        trial = Trial(make_unit(policy), iter(workload()))
        trial.run(1000)
        hits = trial.seen.num_cached_tokens / trial.seen.num_prompt_tokens
        seen[policy] = hits, trial.percentiles("ttft_s")["p50"]
    assert seen["prefix"][0] > seen["round-robin"][0] + 0.05
    assert seen["prefix"][1] <= seen["round-robin"][1]


def test_a_trace_is_read(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [7, 8]},
        {"timestamp": 500, "input_length": 1024, "output_length": 3, "hash_ids": [7, 9]},
        {"timestamp": 9000, "input_length": 512, "output_length": 3, "hash_ids": [7]},
    ]
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    first, second = read_trace(path, speed=2.0, duration_s=1.0)
    assert (first.arrival_s, second.arrival_s) == (0.0, 0.25)
    assert len(first.turns[0].new_ids) == 600
    assert first.turns[0].new_ids[:512] == second.turns[0].new_ids[:512]
    assert first.turns[0].new_ids[512:] != second.turns[0].new_ids[512:600]
    trial = Trial(make_unit(), iter([first, second]))
    trial.run(1000)
    assert trial.seen.num_output_tokens == 8
    assert trial.seen.num_cached_tokens == 512


def test_placed_experts_are_more_even_and_a_dead_ranks_are_taken_over() -> None:
    layout = ExpertLayout(num_experts=256, num_ranks=32, num_redundant=32)
    in_order = ExpertSkew(layout, 0.6, placed=False).balancedness(4096)
    skew = ExpertSkew(layout, 0.6, placed=True)
    placed = skew.balancedness(4096)
    assert in_order < 0.7 < 0.9 < placed < 1
    assert skew.balancedness(64) < placed  # few tokens, more noise
    skew.lose(3)
    assert 0.8 < skew.balancedness(4096) <= placed + 0.02


def test_the_step_time_is_that_of_the_busiest_rank() -> None:
    setting = Setting(name="x")
    layout = ExpertLayout(num_experts=256, num_ranks=32, num_redundant=32)
    model = step_time(setting, ExpertSkew(layout, 0.0, placed=True))
    even = [[(1, 2000)] * 32] * 32
    uneven = [[(1, 2000)] * 64, *[[(1, 2000)] * 31] * 31, []][:32]
    assert 0.005 < model(even, 0) < 0.1
    assert model(uneven, 0) > model(even, 0)
    assert model([[]] * 32, 0) == 0.0


def test_a_whole_run() -> None:
    setting = Setting(name="small", ranks=8, redundant=64, rate=0.5, duration_s=20.0, lost_rank=1)
    result, trial = simulate(setting)
    assert result.requests == trial.seen.num_requests > 0
    assert 0 < result.hit_rate < 1
    assert 0 < result.token_balance <= 1
    assert 0 < result.request_balance <= 1
    assert result.simulated_s > 20.0
    with pytest.raises(ConfigError, match="7 ranks of 32 experts cannot hold 256"):
        simulate(replace(setting, redundant=0))


def test_a_session_goes_on_after_its_answer() -> None:
    session = Session("s", 0.0, [Turn([1, 2, 3], 4), Turn([4, 5], 2, pause_s=3.0)])
    trial = Trial(make_unit(), iter([session]))
    trial.run(1000)
    assert trial.seen.num_requests == 2
    assert trial.seen.num_prompt_tokens == 3 + (3 + 4 + 2)
    assert trial.unit.clock.now() > 3.0
