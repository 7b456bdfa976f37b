"""The executor of this process: steps in order in a thread, grammars prepared beforehand."""

import threading
from concurrent.futures import Future
from typing import Any

import pytest

from leadline.engine.executor.base import Capacity
from leadline.engine.executor.local import LocalExecutor
from leadline.engine.request import Grammar, GrammarKind, SamplingParams
from leadline.engine.step import ModelOutput, SchedulerOutput

CAPACITY = Capacity(num_pages=4, page_size=2, max_model_len=8, max_num_seqs=2)
GRAMMAR = Grammar(GrammarKind.REGEX, "a+")


class FakeRunner:
    """Says which steps it was given, and fails at step 3."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str]] = []

    def run(self, plan: SchedulerOutput) -> ModelOutput:
        self.seen.append((plan.step_id, threading.current_thread().name))
        if plan.step_id == 3:
            raise MemoryError("no room")
        return ModelOutput(plan.step_id, [], 0.0)


class FakeStore:
    """Grammars that are compiled at once."""

    def __init__(self) -> None:
        self.compiled: list[Grammar] = []
        self.is_closed = False

    def compile(self, grammar: Grammar) -> Future[None]:
        self.compiled.append(grammar)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def close(self) -> None:
        self.is_closed = True


def make(runner: Any, store: Any = None) -> LocalExecutor:
    return LocalExecutor(runner, CAPACITY, store)


def test_steps_run_in_order_in_one_thread_that_is_not_the_callers() -> None:
    runner = FakeRunner()
    executor = make(runner)
    futures = [executor.execute(SchedulerOutput(i, [], [], [], 0)) for i in range(5)]
    assert [future.result().step_id for future in futures if future is not futures[3]] == [
        *(0, 1, 2, 4)
    ]
    with pytest.raises(MemoryError, match="no room"):
        futures[3].result()
    executor.close()
    assert [step_id for step_id, _ in runner.seen] == [0, 1, 2, 3, 4]
    threads = {name for _, name in runner.seen}
    assert len(threads) == 1
    assert threads != {threading.current_thread().name}
    assert executor.capacity() == CAPACITY


def test_grammars_are_compiled_before_the_first_step() -> None:
    store = FakeStore()
    executor = make(FakeRunner(), store)
    plain = SamplingParams(seed=0, max_tokens=1)
    assert executor.prepare(plain) is None
    prepared = executor.prepare(SamplingParams(seed=0, max_tokens=1, grammar=GRAMMAR))
    assert prepared is not None
    assert prepared.done()
    assert store.compiled == [GRAMMAR]
    executor.close()
    assert store.is_closed
