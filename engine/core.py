"""The engine's loop body: schedule, execute, update."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from leadline.engine.control import PauseMode
from leadline.engine.errors import EngineAsleepError
from leadline.engine.executor.base import Executor
from leadline.engine.messages import EngineStats, GrammarCounts
from leadline.engine.request import (
    ABORTED_BY_OPERATOR,
    EngineRequest,
    FinishReason,
    RequestOutput,
)
from leadline.engine.running_trace import RunningTrace
from leadline.engine.scheduler import MAX_STEPS_IN_FLIGHT, Scheduler
from leadline.engine.step import ModelOutput
from leadline.engine.survey import EngineSurvey


class KVEventSink(Protocol):
    """Publishes what the scheduler's event log has collected."""

    def publish(self) -> None:
        """Send what has been collected since the last call."""
        ...

    def close(self) -> None:
        """Send no more."""
        ...


class EngineCore:
    """One scheduler and one executor, which work at the same time.

    While a step runs, the next one is planned and handed over, so that the executor goes from one
    to the other without waiting for the bookkeeping.

    Each accepted request yields exactly one output with a finish reason: from `complete_step`,
    `sweep`, `finish` or `finish_all`, whichever ends it.

    Attributes:
        sleep_level: memory that it has given up: 1 for pages, 2 for the weights too; 0 for none.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        executor: Executor,
        *,
        max_steps: int = MAX_STEPS_IN_FLIGHT,
        events: KVEventSink | None = None,
        grammar_counts: Callable[[], GrammarCounts] = GrammarCounts,
        waking_stage: Callable[[], str] = str,
    ) -> None:
        """An engine at rest.

        Args:
            scheduler: plans.
            executor: carries plans out.
            max_steps: steps in flight at most; 1 plans a step only after the one before it.
            events: is told which pages the scheduler has cached and given away.
            grammar_counts: what the executor's grammars have been asked for.
            waking_stage: how far an executor is that wakes up, in a few words.
        """
        assert 1 <= max_steps <= MAX_STEPS_IN_FLIGHT
        self._scheduler = scheduler
        self._executor = executor
        self._max_steps = max_steps
        self._events = events
        self._grammar_counts = grammar_counts
        self._waking_stage = waking_stage
        self._activity = ""
        self._is_stalled = False
        self._is_told = False
        self.sleep_level = 0
        self._waking: Future[None] | None = None
        self._in_flight: deque[Future[ModelOutput]] = deque()
        self._trace: RunningTrace | None = None
        self._ids_in_flight: deque[frozenset[str]] = deque()

    def leave_trace(self, path: Path) -> None:
        """Keep a file from now on that says which requests are being computed."""
        max_requests = MAX_STEPS_IN_FLIGHT * self._executor.capacity().max_num_seqs
        self._trace = RunningTrace(path, max_requests)

    def submit(self, request: EngineRequest) -> None:
        """Accept a request.

        Raises:
            RequestError: the request is refused; it will have no outputs.
        """
        if self.sleep_level:
            raise EngineAsleepError("the engine sleeps; POST /wake_up ends that")
        self._scheduler.add(request, self._executor.prepare(request.params))
        self._is_stalled = False

    def finish(self, request_id: str, reason: FinishReason) -> RequestOutput | None:
        """End a request now; its final output, or None if it has had one or is unknown."""
        return self._scheduler.finish(request_id, reason)

    def finish_all(self, reason: FinishReason) -> list[RequestOutput]:
        """End every request now; their final outputs."""
        return self._scheduler.finish_all(reason)

    def sweep(self) -> list[RequestOutput]:
        """End requests whose deadline has passed or that could not be prepared; their finals."""
        return self._scheduler.sweep()

    def abort(self, names: list[str] | None) -> tuple[list[RequestOutput], list[str]]:
        """End requests because an operator wants it.

        Args:
            names: any names of theirs (`EngineRequest.names`); None for all requests.

        Returns:
            Their final outputs, and the first name of each API request that they belong to.
        """
        book = self._scheduler.book
        states = list(book.requests.values()) if names is None else book.find(names)
        error = ABORTED_BY_OPERATOR
        outputs = [self._scheduler.finish(s.request_id, FinishReason.ABORT, error) for s in states]
        first_names = dict.fromkeys(name for s in states for name in s.request.names[:1])
        return [output for output in outputs if output is not None], list(first_names)

    def pause(self, mode: PauseMode) -> list[RequestOutput]:
        """Take no more steps, at once or soon (`is_paused`); final outputs of what that ends."""
        self._is_told = True
        outputs, _ = self.abort(None) if mode is PauseMode.ABORT else ([], [])
        self._scheduler.book.hold(only_new=mode is PauseMode.WAIT)
        return outputs

    def stay_paused(self, sleep_level: int = 0) -> None:
        """The engine before this one was paused: so is this one, unless it was told otherwise."""
        if not self._is_told:
            self._scheduler.book.hold(only_new=False)
            if sleep_level > self.sleep_level and self.is_paused:
                self.sleep(sleep_level)

    def resume(self) -> None:
        """Take steps again; only while it is awake."""
        self._is_told = True
        self._scheduler.book.let_go()

    def sleep(self, level: int) -> int:
        """Give up memory, see `Executor.sleep`; only while paused, and not while it wakes up.

        Cached pages are forgotten; requests that wait stay in the queue, new ones are refused.

        Returns:
            How many bytes it has given up.
        """
        assert self.is_paused, "a running engine needs its memory"
        before = self._executor.num_bytes
        self._scheduler.reset_prefix_cache()
        self._executor.sleep(level)
        self._scheduler.book.take_released_ids()  # nothing is held any more
        self.sleep_level = max(level, self.sleep_level)
        return before - self._executor.num_bytes

    def start_waking(self) -> None:
        """Begin to take the memory back; see `finish_waking`. Steps wait for a `resume`."""
        if self.sleep_level and self._waking is None:
            self._waking = self._executor.wake_up()

    def announce(self, activity: str) -> None:
        """Say what it is about to be busy with that is no step; empty for nothing."""
        self._activity = activity

    @property
    def activity(self) -> str:
        """What it is busy with that is no step, and how far it is; empty for nothing."""
        if self._waking is None:
            return self._activity
        return ": ".join(filter(None, ("waking up", self._waking_stage())))

    @property
    def is_waking(self) -> bool:
        """Whether the memory is on its way."""
        return self._waking is not None

    def finish_waking(self) -> bool:
        """Whether the engine is awake after all; False while the memory is still on its way.

        Raises:
            Exception: why the memory could not be taken back; the engine sleeps on.
        """
        if self._waking is not None:
            if not self._waking.done():
                return False
            waking, self._waking = self._waking, None
            waking.result()
            self.sleep_level = 0
        return True

    @property
    def is_holding(self) -> bool:
        """Whether new requests wait: the engine is paused, or about to be."""
        return self._scheduler.book.is_holding

    @property
    def is_paused(self) -> bool:
        """Whether no step is in flight, and none will be before `resume`."""
        return self.is_holding and not self.has_work()

    def idle_s(self) -> float | None:
        """Seconds until `sweep` may have something to end, without any step; None for never."""
        return self._scheduler.idle_s()

    def has_work(self) -> bool:
        """Whether a step is in flight or worth starting."""
        return bool(self._in_flight) or self._scheduler.has_work()

    @property
    def num_steps_in_flight(self) -> int:
        """Steps that were started and not completed."""
        return len(self._in_flight)

    def start_steps(self) -> None:
        """Plan steps and hand them to the executor, as many as may be in flight.

        Requests may come and end while they run. There may be nothing to start: all requests wait
        for the step in flight, or to be prepared.
        """
        while self.start_step() is not None:
            pass

    def start_step(self, *, takes_prompts: bool = True) -> frozenset[str] | None:
        """Plan one more step and hand it over, if there may be one; the requests in it.

        Args:
            takes_prompts: see `Scheduler.schedule`.
        """
        if len(self._in_flight) == self._max_steps or not self._scheduler.has_work():
            return None
        plan = self._scheduler.schedule(takes_prompts=takes_prompts)
        self._is_stalled = plan is None and not self._in_flight
        if plan is None:
            return None
        request_ids = frozenset(row.request_id for row in plan.rows)
        if self._trace is not None:
            self._ids_in_flight.append(request_ids)
            self._trace.run(frozenset().union(*self._ids_in_flight))
        self._in_flight.append(self._executor.execute(plan))
        return request_ids

    @property
    def has_suspect(self) -> bool:
        """Whether there is a request that is to be computed alone."""
        return self._scheduler.book.next_suspect() is not None

    def can_step(self) -> bool:
        """False where every request waits to be prepared."""
        return not self._is_stalled

    def complete_step(self) -> list[RequestOutput]:
        """Wait for the oldest step in flight; the outputs of its rows.

        An error of the executor is raised as it is: the engine cannot go on after it.
        """
        output = self._in_flight[0].result()
        self._in_flight.popleft()
        if self._trace is not None:
            self._ids_in_flight.popleft()
            self._trace.complete_step()
        return self._scheduler.update(output)

    def step(self) -> list[RequestOutput]:
        """Start what can be started, and complete the oldest step if there is one."""
        outputs = self.sweep()
        self.start_steps()
        return outputs + (self.complete_step() if self._in_flight else [])

    def reset_prefix_cache(self) -> int:
        """Forget all cached pages; returns how many there were."""
        return self._scheduler.reset_prefix_cache()

    def publish_events(self) -> None:
        """Let routers know what has happened to cached pages, where somebody publishes it."""
        if self._events is not None:
            self._events.publish()

    def stats(self) -> EngineStats:
        """Gauges of this moment, and counters since start."""
        stats = self._scheduler.stats()
        stats.grammars = self._grammar_counts()
        stats.holds_requests = self.is_holding
        stats.is_paused = self.is_paused
        stats.sleep_level = self.sleep_level
        stats.activity = self.activity
        return stats

    def survey(self) -> EngineSurvey:
        """How pages, queue and experts stand."""
        return replace(self._scheduler.survey(), expert_load=self._executor.expert_load())

    def close(self) -> None:
        """Release what the executor holds."""
        self._executor.close()
        if self._events is not None:
            self._events.close()
