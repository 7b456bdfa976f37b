"""The executor of one device in this process."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from leadline.engine.executor.base import Capacity
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.request import SamplingParams
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad


class Worker(Protocol):
    """A model and its pages (`worker.worker.Worker`)."""

    @property
    def num_bytes(self) -> int:
        """See `Executor.num_bytes`."""
        ...

    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute a step."""
        ...

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`."""
        ...

    def sleep(self, level: int) -> None:
        """See `Executor.sleep`."""
        ...

    def wake_up(self) -> None:
        """See `Executor.wake_up`."""
        ...


class LocalExecutor:
    """`base.Executor` that runs each step in a thread, so that messages are handled meanwhile."""

    def __init__(
        self, worker: Worker, capacity: Capacity, grammars: GrammarStore | None = None
    ) -> None:
        """`grammars`: the worker's; None if it has none."""
        self._worker = worker
        self._capacity = capacity
        self._grammars = grammars
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadline-step")

    def capacity(self) -> Capacity:
        """See `base.Executor.capacity`."""
        return self._capacity

    def prepare(self, params: SamplingParams) -> Future[None] | None:
        """See `base.Executor.prepare`."""
        if params.grammar is None:
            return None
        assert self._grammars is not None, "grammars are refused where there are none to be had"
        return self._grammars.compile(params.grammar)

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `base.Executor.execute`."""
        return self._thread.submit(self._worker.run, plan)

    def expert_load(self) -> list[ExpertLoad]:
        """See `base.Executor.expert_load`."""
        return self._worker.expert_load()

    def sleep(self, level: int) -> None:
        """See `base.Executor.sleep`."""
        self._thread.submit(self._worker.sleep, level).result()

    def wake_up(self) -> Future[None]:
        """See `base.Executor.wake_up`."""
        return self._thread.submit(self._worker.wake_up)

    @property
    def num_bytes(self) -> int:
        """See `base.Executor.num_bytes`."""
        return self._worker.num_bytes

    def close(self) -> None:
        """End the threads after what they are in."""
        self._thread.shutdown()
        if self._grammars is not None:
            self._grammars.close()
