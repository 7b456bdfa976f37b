"""A model and its pages, either of which can be given up and made again."""

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad


class Weights(Protocol):
    """A loaded model."""

    @property
    def num_bytes(self) -> int:
        """Memory that its tensors take."""
        ...

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`."""
        ...


class Runner(Protocol):
    """Pages, and what computes on them (`model_runner.ModelRunner`)."""

    @property
    def num_bytes(self) -> int:
        """Memory that the pages take."""
        ...

    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute a step."""
        ...


W = TypeVar("W", bound=Weights)


class Worker(Generic[W]):
    """Computes steps while it is awake; see `Executor.sleep` for the levels of its sleep."""

    def __init__(
        self, weights: W, runner: Runner, load: Callable[[], W], make_runner: Callable[[W], Runner]
    ) -> None:
        """Awake.

        Args:
            weights: the model.
            runner: computes with it.
            load: loads it once more.
            make_runner: makes another runner, whose pages hold nothing.
        """
        self._load = load
        self._make_runner = make_runner
        self._weights: W | None = weights
        self._runner: Runner | None = runner

    @property
    def num_bytes(self) -> int:
        """Memory that model and pages take now."""
        held = (part for part in (self._weights, self._runner) if part is not None)
        return sum(part.num_bytes for part in held)

    def run(self, plan: SchedulerOutput) -> ModelOutput:
        """Compute a step."""
        assert self._runner is not None, "a step of a worker that sleeps"
        return self._runner.run(plan)

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`; since the model was loaded, and empty without one."""
        weights = self._weights
        return [] if weights is None else weights.expert_load()

    def sleep(self, level: int) -> None:
        """See `Executor.sleep`."""
        self._runner = None
        if level > 1:
            self._weights = None

    def wake_up(self) -> None:
        """See `Executor.wake_up`."""
        if self._weights is None:
            self._weights = self._load()
        if self._runner is None:
            self._runner = self._make_runner(self._weights)
