"""The executor of one device in this process."""

from concurrent.futures import Future, ThreadPoolExecutor

from leadline.engine.executor.base import Capacity
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.worker.model_runner import ModelRunner


class LocalExecutor:
    """`base.Executor` that runs each step in a thread, so that messages are handled meanwhile."""

    def __init__(self, runner: ModelRunner, capacity: Capacity) -> None:
        self._runner = runner
        self._capacity = capacity
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadline-step")

    def capacity(self) -> Capacity:
        """See `base.Executor.capacity`."""
        return self._capacity

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `base.Executor.execute`."""
        return self._thread.submit(self._runner.run, plan)

    def close(self) -> None:
        """End the thread after the step that it is in."""
        self._thread.shutdown()
