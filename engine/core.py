"""The engine's loop body: schedule, execute, update."""

from concurrent.futures import Future

from leadline.engine.executor.base import Executor
from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.scheduler import Scheduler
from leadline.engine.step import ModelOutput, SchedulerOutput


class EngineCore:
    """One scheduler and one executor.

    Each accepted request yields exactly one output with a finish reason: from `complete_step`,
    `finish` or `finish_all`, whichever ends it.
    """

    def __init__(self, scheduler: Scheduler, executor: Executor) -> None:
        self._scheduler = scheduler
        self._executor = executor
        self._in_flight: tuple[SchedulerOutput, Future[ModelOutput]] | None = None

    def submit(self, request: EngineRequest) -> None:
        """Accept a request.

        Raises:
            RequestError: the request is refused; it will have no outputs.
        """
        self._scheduler.add(request)

    def finish(self, request_id: str, reason: FinishReason) -> RequestOutput | None:
        """End a request now; its final output, or None if it has had one or is unknown."""
        return self._scheduler.finish(request_id, reason)

    def finish_all(self, reason: FinishReason) -> list[RequestOutput]:
        """End every request now; their final outputs."""
        return self._scheduler.finish_all(reason)

    def has_work(self) -> bool:
        """Whether a step is in flight or worth starting."""
        return self._in_flight is not None or self._scheduler.has_work()

    def start_step(self) -> None:
        """Plan a step and hand it to the executor; requests may come and end while it runs."""
        assert self._in_flight is None, "a step is in flight"
        plan = self._scheduler.schedule()
        self._in_flight = plan, self._executor.execute(plan)

    def complete_step(self) -> list[RequestOutput]:
        """Wait for the step in flight; the outputs of its rows.

        An error of the executor is raised as it is: the engine cannot go on after it.
        """
        assert self._in_flight is not None, "no step is in flight"
        plan, future = self._in_flight
        output = future.result()
        self._in_flight = None
        return self._scheduler.update(plan, output)

    def step(self) -> list[RequestOutput]:
        """One whole step."""
        self.start_step()
        return self.complete_step()

    def stats(self) -> EngineStats:
        """Gauges of this moment, and counters since start."""
        return self._scheduler.stats()

    def close(self) -> None:
        """Release what the executor holds."""
        self._executor.close()
