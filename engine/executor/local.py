"""The executor of one device in this process."""

from concurrent.futures import Future, ThreadPoolExecutor

from leadline.engine.executor.base import Capacity
from leadline.engine.grammar.compiler import GrammarStore
from leadline.engine.request import SamplingParams
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad
from leadline.engine.worker.model_runner import ModelRunner


class LocalExecutor:
    """`base.Executor` that runs each step in a thread, so that messages are handled meanwhile."""

    def __init__(
        self, runner: ModelRunner, capacity: Capacity, grammars: GrammarStore | None = None
    ) -> None:
        """`grammars`: the runner's; None if it has none."""
        self._runner = runner
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
        return self._thread.submit(self._runner.run, plan)

    def expert_load(self) -> list[ExpertLoad]:
        """See `base.Executor.expert_load`."""
        return self._runner.expert_load()

    def close(self) -> None:
        """End the threads after what they are in."""
        self._thread.shutdown()
        if self._grammars is not None:
            self._grammars.close()
