"""The executor of one device in this process."""

from concurrent.futures import Future

from leadline.engine.executor.base import Capacity
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.worker.model_runner import ModelRunner


class LocalExecutor:
    """`base.Executor` that runs each step at once, in the caller's thread."""

    def __init__(self, runner: ModelRunner, capacity: Capacity) -> None:
        self._runner = runner
        self._capacity = capacity

    def capacity(self) -> Capacity:
        """See `base.Executor.capacity`."""
        return self._capacity

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `base.Executor.execute`."""
        future: Future[ModelOutput] = Future()
        future.set_result(self._runner.run(plan))
        return future

    def close(self) -> None:
        """Nothing is held that the process's end does not free."""
