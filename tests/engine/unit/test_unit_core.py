"""The core of a unit over simulated ranks: every lane steps as often, every request ends once."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.control import PauseMode
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.errors import EngineDeadError, InvalidRequestError
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.simulated import SimulatedExecutor
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.request import (
    EngineRequest,
    FinishReason,
    RequestOutput,
    Resumption,
    SamplingParams,
    SpeculationCounts,
)
from leadline.engine.routing.policies import LeastLoaded
from leadline.engine.routing.router import Router
from leadline.engine.running_trace import read_trace
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import ModelOutput
from leadline.engine.unit.messages import (
    Answer,
    RunStep,
    SleepRank,
    StepDone,
    TakeExpertLoad,
    ToRank,
    WakeRank,
)
from leadline.engine.unit.unit_core import UnitCore
from leadline.engine.unit.unit_executor import IDLE_STEP, UnitExecutor

CAPACITY = Capacity(num_pages=24, page_size=4, max_model_len=64, max_num_seqs=4, vocab_size=20)


class SimulatedRanks:
    """A link to ranks that compute a command when it is sent and report it later.

    Attributes:
        plans: of each rank, in order.
    """

    def __init__(self, layout: ParallelLayout) -> None:
        self.plans: list[list[Any]] = [[] for _ in range(layout.num_ranks)]
        self.executor: UnitExecutor | None = None
        self._layout = layout
        self._devices = [
            SimulatedExecutor(CAPACITY, vocab_size=20, draft_acceptance=0.5)
            for _ in range(layout.num_ranks)
        ]

    def send(self, ranks: Sequence[int], command: ToRank) -> None:
        assert self.executor is not None
        for rank in ranks:
            match command:
                case RunStep(plan):
                    self.plans[rank].append(plan)
                    output = self._run(rank, plan)
                    if self._layout.tp_rank(rank) == 0:
                        self.executor.hear(StepDone(rank, output))
                case TakeExpertLoad(ticket) | SleepRank(ticket) | WakeRank(ticket):
                    self.executor.hear(Answer(rank=rank, ticket=ticket, num_bytes=7))

    def _run(self, rank: int, plan: Any) -> ModelOutput:
        if plan.step_id == IDLE_STEP:
            return ModelOutput(IDLE_STEP, [], 0.0)
        return self._devices[rank].execute(plan).result()


class Unit:
    """A unit and all that it said."""

    def __init__(self, dp: int, tp: int = 1, prefill_interval: int = 1) -> None:
        layout = ParallelLayout(tp_size=tp, dp_size=dp, expert_parallel=True)
        self.ranks = SimulatedRanks(layout)
        self.executor = self.ranks.executor = UnitExecutor(self.ranks, layout, CAPACITY)
        self.schedulers = [
            Scheduler(CAPACITY, max_num_batched_tokens=12, draft_policy=DraftPolicy(2))
            for _ in range(dp)
        ]
        lanes = [
            EngineCore(scheduler, lane)
            for scheduler, lane in zip(self.schedulers, self.executor.lanes, strict=True)
        ]
        router = Router(LeastLoaded(), dp, num_pages=24, page_size=4)
        self.core = UnitCore(
            lanes,
            self.executor,
            router,
            close=lambda: None,
            prefill_interval=prefill_interval,
        )
        self.texts: dict[str, list[int]] = {}
        self.reasons: dict[str, FinishReason] = {}

    def take(self, outputs: Sequence[RequestOutput]) -> None:
        for output in outputs:
            assert output.request_id not in self.reasons, "output after the final one"
            self.texts.setdefault(output.request_id, []).extend(output.token_ids)
            if output.finish_reason is not None:
                self.reasons[output.request_id] = output.finish_reason

    def step(self) -> None:
        self.take(self.core.step())
        for scheduler in self.schedulers:
            scheduler.check()

    def run(self) -> None:
        while self.core.has_work():
            self.step()


def request(name: str, length: int = 5, max_tokens: int = 6, **fields: Any) -> EngineRequest:
    dice = random.Random(name)
    prompt = [dice.randrange(20) for _ in range(length)]
    params = SamplingParams(max_tokens=max_tokens, seed=dice.getrandbits(32))
    return EngineRequest(request_id=name, prompt_ids=prompt, params=params, **fields)


def test_lanes_step_together_and_idle_ones_take_part() -> None:
    unit = Unit(dp=3, tp=2)
    unit.core.submit(request("a"))
    unit.core.submit(request("b", max_tokens=3))
    unit.run()
    assert [unit.reasons[name] for name in "ab"] == [FinishReason.LENGTH] * 2
    counts = {len(plans) for plans in unit.ranks.plans}
    assert len(counts) == 1, "every rank takes part in every step"
    assert all(plan.step_id == IDLE_STEP for rank in (4, 5) for plan in unit.ranks.plans[rank])
    assert unit.ranks.plans[0] == unit.ranks.plans[1], "those that share requests do the same"
    before = counts.pop()
    assert not unit.core.has_work()
    unit.core.start_steps()
    assert {len(plans) for plans in unit.ranks.plans} == {before}, "an idle unit sends nothing"


def test_no_step_is_wasted_where_lanes_begin_at_different_times() -> None:
    unit = Unit(dp=2)
    unit.core.submit(request("a", max_tokens=20))
    for _ in range(3):
        unit.step()
    unit.core.submit(request("b", max_tokens=20))
    while len(unit.reasons) < 1:
        unit.step()
    plans = unit.ranks.plans[0]
    assert all(plan.rows for plan in plans[: len(plans) - 1]), "the first lane has work in each"


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_each_request_ends_once_with_the_text_it_has_alone(data: st.DataObject) -> None:
    unit = Unit(data.draw(st.integers(1, 3)), 1, data.draw(st.sampled_from([1, 1, 2, 5])))
    sizes = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3))
    plan = data.draw(st.lists(sizes, min_size=1, max_size=12))
    aborted = set()
    for number, (length, max_tokens, num_steps) in enumerate(plan):
        unit.core.submit(request(f"r{number}", length, max_tokens))
        for _ in range(num_steps):
            unit.step()
        if data.draw(st.integers(0, 5)) == 0:
            final = unit.core.finish(f"r{number}", FinishReason.ABORT)
            if final is not None:
                unit.take([final])
                aborted.add(number)
    unit.run()
    assert set(unit.reasons) == {f"r{number}" for number in range(len(plan))}
    for number, (length, max_tokens, _) in enumerate(plan):
        if number not in aborted:
            alone = Unit(dp=1)
            alone.core.submit(request(f"r{number}", length, max_tokens))
            alone.run()
            assert unit.texts[f"r{number}"] == alone.texts[f"r{number}"]
    assert len({len(plans) for plans in unit.ranks.plans}) == 1
    assert unit.core.stats().num_running == 0


def test_prompts_come_in_the_same_steps_of_all_lanes() -> None:
    unit = Unit(dp=2, prefill_interval=4)
    for name in "abcdefgh":
        unit.core.submit(request(name, length=20, max_tokens=12))
        unit.step()
    unit.run()
    assert set(unit.reasons.values()) == {FinishReason.LENGTH}
    numbers = set()
    for number, plans in enumerate(zip(*unit.ranks.plans, strict=True)):
        rows = [row for plan in plans for row in plan.rows]
        if any(row.num_tokens > 1 for row in rows) and any(
            row.num_tokens == 1 and row.samples for row in rows
        ):
            numbers.add(number % 4)
    assert len(numbers) == 1, "beside answers, prompts are computed in every fourth step"


def test_choices_of_one_prompt_share_a_lane() -> None:
    unit = Unit(dp=2)
    unit.core.submit(request("a"))
    unit.core.submit(request("a-1", leader_id="a"))
    unit.core.submit(request("b"))
    unit.run()
    held = [
        {new.request_id for plan in plans for new in plan.new_requests}
        for plans in unit.ranks.plans
    ]
    assert held == [{"a", "a-1"}, {"b"}]


def test_a_suspect_is_computed_alone_in_the_whole_unit() -> None:
    unit = Unit(dp=2)
    for name in "abcd":
        unit.core.submit(request(name, max_tokens=10))
    unit.step()
    resumption = Resumption(
        token_ids=[1], num_cached_tokens=0, speculation=SpeculationCounts(), is_suspect=True
    )
    for name in ("s", "t"):
        unit.core.submit(request(name, max_tokens=10, resumption=resumption))
    unit.run()
    assert len(unit.reasons) == 6
    for plans in zip(*unit.ranks.plans, strict=True):
        started = [new.request_id for plan in plans for new in plan.new_requests]
        ids = [row.request_id for plan in plans for row in plan.rows]
        for name in ("s", "t"):
            if name in started:
                assert ids == [name]


def test_a_pause_and_a_sleep_hold_all_lanes(tmp_path: Any) -> None:
    unit = Unit(dp=2)
    unit.core.leave_trace(tmp_path / "trace")
    for name in "abc":
        unit.core.submit(request(name, max_tokens=12))
    unit.step()
    assert set(read_trace(tmp_path / "trace").request_ids) == {"a", "b", "c"}
    unit.take(unit.core.pause(PauseMode.KEEP))
    while unit.core.has_work():
        unit.step()
    assert unit.core.is_paused
    assert unit.core.stats().is_paused
    unit.core.sleep(1)
    assert unit.core.sleep_level == 1
    unit.core.start_waking()
    assert unit.core.finish_waking()
    unit.core.resume()


def test_statistics_are_those_of_all_lanes() -> None:
    unit = Unit(dp=2)
    for number in range(5):
        unit.core.submit(request(str(number), length=4, max_tokens=3))
    unit.run()
    stats = unit.core.stats()
    assert stats.prompt_tokens == 20
    assert stats.generation_tokens == 15
    assert sum(stats.step_tokens.counts) == stats.num_steps
    survey = unit.core.survey()
    assert len(survey.pages) == 2 * CAPACITY.num_pages
    assert unit.core.abort(None) == ([], [])


def test_a_request_that_is_refused_leaves_no_trace() -> None:
    unit = Unit(dp=2)
    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            unit.core.submit(request("a", max_tokens=0))
    unit.core.submit(request("a"))
    with pytest.raises(InvalidRequestError):
        unit.core.submit(request("a"))
    unit.run()
    assert set(unit.reasons) == {"a"}


def test_what_is_awaited_of_a_dead_unit_fails() -> None:
    unit = Unit(dp=2)
    unit.ranks.send = lambda ranks, command: None  # type: ignore[method-assign]
    unit.core.submit(request("a"))
    unit.core.start_steps()
    unit.executor.fail("rank 1 has died", False)
    with pytest.raises(EngineDeadError, match="rank 1 has died"):
        unit.core.complete_step()
    with pytest.raises(EngineDeadError):
        unit.core.sweep()
