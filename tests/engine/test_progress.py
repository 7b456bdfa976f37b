"""When an engine counts as waiting, and what its steps are predicted to take."""

import pytest

from leadline.engine.core import EngineCore
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.simulated import SimulatedExecutor
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.messages import EngineStats
from leadline.engine.progress import Progress
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.engine.scheduler import Scheduler
from leadline.engine.step_cost import MIN_STEPS


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_work_of_other_clients_is_waited_for_too() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.pending_since_s is None
    progress.others_pending_since_s = clock.now_s + 1
    clock.now_s += 4
    assert progress.waiting_s == 3
    assert progress.pending_since_s is None, "it is not this client's"
    progress.ask()
    assert (progress.waiting_s, progress.pending_since_s) == (3, clock.now_s)
    progress.hear(EngineStats(num_steps=1))
    clock.now_s += 1
    assert progress.waiting_s == 1
    progress.others_pending_since_s = None
    progress.answer()
    assert progress.waiting_s == 0


def test_waiting_begins_with_the_work_and_anew_with_each_step() -> None:
    clock = Clock()
    progress = Progress(clock)
    clock.now_s += 50
    assert (progress.waiting_s, progress.age_s) == (0, 50)
    progress.ask()
    clock.now_s += 2
    progress.ask()  # more work is no reason to wait longer
    clock.now_s += 3
    assert (progress.waiting_s, progress.age_s) == (5, 55)
    progress.hear(EngineStats(num_steps=1))
    clock.now_s += 1
    progress.hear(EngineStats(num_steps=1))
    assert (progress.waiting_s, progress.age_s) == (1, 1)
    progress.answer()
    assert progress.waiting_s == 1
    progress.answer()
    clock.now_s += 1
    assert (progress.waiting_s, progress.age_s) == (0, 2)


def test_orders_to_a_sleeping_engine_are_waited_for() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.ask(is_request=True)  # goes on after the sleep
    progress.hear(EngineStats(is_paused=True, sleep_level=1))
    clock.now_s += 100
    assert (progress.waiting_s, progress.pending_since_s) == (0, None)
    progress.ask()
    clock.now_s += 3
    assert progress.waiting_s == 3
    progress.answer()
    assert progress.waiting_s == 0
    progress.ask(is_request=True)  # will be refused
    clock.now_s += 2
    assert progress.waiting_s == 2
    progress.answer(is_request=True)
    assert progress.waiting_s == 0
    progress.hear(EngineStats())
    clock.now_s += 1
    assert progress.waiting_s == 1  # for the first one again


def test_an_activity_is_waited_for_from_its_last_news_on() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.hear(EngineStats(is_paused=True, sleep_level=2))
    for stage in ("1 of 2", "2 of 2"):
        clock.now_s += 50
        progress.hear(EngineStats(is_paused=True, sleep_level=2, activity=stage))
        clock.now_s += 3
        progress.hear(EngineStats(is_paused=True, sleep_level=2, activity=stage))
        assert (progress.waiting_s, progress.activity) == (3, stage)
        assert progress.pending_since_s is None, "whoever has asked for it"
    progress.hear(EngineStats())
    assert (progress.waiting_s, progress.activity) == (0, "")
    progress.hear(EngineStats(activity="giving up memory"))
    progress.restart()
    assert (progress.waiting_s, progress.activity) == (0, "")


def test_steps_in_flight_are_predicted_once_their_cost_is_known() -> None:
    capacity = Capacity(num_pages=100, page_size=4, max_model_len=200, max_num_seqs=4)
    executor = SimulatedExecutor(capacity, step_time=StepTimeModel(fixed_s=2.0))
    core = EngineCore(Scheduler(capacity, max_num_batched_tokens=64), executor)
    params = SamplingParams(seed=0, max_tokens=50)
    core.submit(EngineRequest(request_id="a", prompt_ids=[1], params=params, arrival_s=0.0))
    core.step()
    assert core.stats().predicted_step_s == 0
    for _ in range(MIN_STEPS):
        core.step()
    core.start_steps()
    assert core.num_steps_in_flight > 0
    assert core.stats().predicted_step_s == pytest.approx(2.0, rel=0.1)
