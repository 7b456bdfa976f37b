"""The executor of a unit: each data parallel group of ranks is a lane with requests of its own."""

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from leadline.engine.errors import ConfigError, EngineDeadError, InvalidRequestError
from leadline.engine.executor.base import Capacity
from leadline.engine.messages import GrammarCounts
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.request import SamplingParams
from leadline.engine.step import ModelOutput, SchedulerOutput
from leadline.engine.survey import ExpertLoad
from leadline.engine.unit.messages import (
    Answer,
    FromRank,
    PrepareGrammar,
    RankLoading,
    RankReady,
    RunStep,
    SleepRank,
    StepDone,
    TakeExpertLoad,
    ToRank,
    WakeRank,
)
from leadline.engine.unit.progress import READY, LoadingProgress

IDLE_STEP = -1  # step ids of plans that only take part


class Link(Protocol):
    """Sends commands (`rank_link.RankLink`)."""

    def send(self, ranks: Sequence[int], command: ToRank) -> None:
        """Send to ranks."""
        ...


class UnitExecutor:
    """Sends plans to ranks and resolves futures with what they report.

    Every step is a step of all lanes. `even_out` follows the plans of one step: lanes that had none
    get an empty one.

    Attributes:
        lanes: an `Executor` for each data parallel group.
        progress: how far the ranks have come with loading.
    """

    def __init__(self, link: Link, layout: ParallelLayout, capacity: Capacity) -> None:
        self._link = link
        self._layout = layout
        self._lock = threading.Lock()
        self._failure: Exception | None = None
        self._tickets = itertools.count()
        self._questions: dict[int, Question] = {}
        self.progress = LoadingProgress(layout.num_ranks)
        self.num_bytes = [0] * layout.num_ranks
        self.grammars: dict[int, GrammarCounts] = {}
        self.lanes = [LaneExecutor(self, ranks, capacity) for ranks in layout.tp_groups()]

    def even_out(self) -> None:
        """Let lanes that had no plan in this step take part in it."""
        most = max(lane.num_sent for lane in self.lanes)
        for lane in self.lanes:
            while lane.num_sent < most:
                lane.take_part()

    def ask(self, ranks: Sequence[int], command: ToRank, ticket: int) -> "Future[list[Answer]]":
        """Send a command that each of the ranks answers."""
        question = Question(len(ranks))
        with self._lock:
            if self._failure is not None:
                raise self._failure
            self._questions[ticket] = question
        self._link.send(ranks, command)
        return question.future

    def next_ticket(self) -> int:
        """Names a question."""
        return next(self._tickets)

    def send(self, ranks: Sequence[int], command: ToRank) -> None:
        """Send a command.

        Raises:
            EngineDeadError, ConfigError: the unit has failed.
        """
        self.check()
        self._link.send(ranks, command)

    def check(self) -> None:
        """Whether the unit can go on.

        Raises:
            EngineDeadError, ConfigError: it cannot.
        """
        if self._failure is not None:
            raise self._failure

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`: of all ranks together."""
        ticket = self.next_ticket()
        # Where experts are sliced, every rank has seen every token.
        ranks = range(self._layout.num_ranks) if self._layout.expert_parallel else range(1)
        answers = self.ask(ranks, TakeExpertLoad(ticket), ticket).result()
        layers = zip(*(answer.expert_load for answer in answers), strict=True)
        return [
            ExpertLoad(
                same[0].layer,
                same[0].is_mtp,
                [sum(counts) for counts in zip(*(part.counts for part in same), strict=True)],
            )
            for same in layers
        ]

    def hear(self, report: FromRank) -> None:
        """Take in what a rank reports; in the link's thread."""
        match report:
            case StepDone(rank, output):
                self.lanes[self._layout.dp_rank(rank)].complete(output)
            case Answer():
                if report.num_bytes:
                    self.num_bytes[report.rank] = report.num_bytes
                    self.progress.take_stage(report.rank, READY)
                if report.grammars.num_queries:
                    self.grammars[report.rank] = report.grammars
                with self._lock:
                    question = self._questions[report.ticket]
                    if question.take(report):
                        del self._questions[report.ticket]
                question.settle()
            case RankReady():
                self.num_bytes[report.rank] = report.num_bytes
                self.progress.take_ready(report)
            case RankLoading(rank, stage):
                self.progress.take_stage(rank, stage)

    def fail(self, cause: str, is_users: bool) -> None:
        """The unit cannot go on: whatever is awaited fails; in the link's thread."""
        error = ConfigError(cause) if is_users else EngineDeadError(cause)
        with self._lock:
            self._failure = error
            futures: list[Future[list[Answer]]] = [q.future for q in self._questions.values()]
            self._questions.clear()
        for future in futures:
            future.set_exception(error)
        for lane in self.lanes:
            lane.fail(error)


class Question:
    """A command whose answers are awaited."""

    def __init__(self, num_ranks: int) -> None:
        self.future: Future[list[Answer]] = Future()
        self._num_ranks = num_ranks
        self._answers: list[Answer] = []

    def take(self, answer: Answer) -> bool:
        """Whether this was the last answer."""
        self._answers.append(answer)
        return len(self._answers) == self._num_ranks

    def settle(self) -> None:
        """Resolve the future if all have answered."""
        if len(self._answers) == self._num_ranks and not self.future.done():
            self.future.set_result(self._answers)


class LaneExecutor:
    """`Executor` of the ranks that share requests.

    Attributes:
        num_sent: plans sent since start, empty ones included.
    """

    def __init__(self, unit: UnitExecutor, ranks: Sequence[int], capacity: Capacity) -> None:
        self._unit = unit
        self._ranks = ranks
        self._capacity = capacity
        self._awaited: deque[Future[ModelOutput] | None] = deque()
        self._dispatch = DispatchCounts()  # not told yet, since nobody awaits steps without rows
        self.num_sent = 0

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return self._capacity

    def prepare(self, params: SamplingParams) -> Future[None] | None:
        """See `Executor.prepare`; every rank compiles the grammar for itself."""
        if params.grammar is None:
            return None
        ticket = self._unit.next_ticket()
        answers = self._unit.ask(self._ranks, PrepareGrammar(ticket, params.grammar), ticket)
        prepared: Future[None] = Future()
        answers.add_done_callback(lambda future: _pass_on(future, prepared))
        return prepared

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `Executor.execute`."""
        done: Future[ModelOutput] = Future()
        self._send(plan, done)
        return done

    def take_part(self) -> None:
        """A step without rows, in which other lanes have some."""
        self._send(SchedulerOutput(IDLE_STEP, [], [], [], 0), None)

    def complete(self, output: ModelOutput) -> None:
        """The oldest step is over; in the link's thread."""
        if output.dispatch is not None:
            self._dispatch.add(output.dispatch)
        done = self._awaited.popleft()
        if done is not None:
            output.dispatch, self._dispatch = self._dispatch, DispatchCounts()
            done.set_result(output)

    def fail(self, error: Exception) -> None:
        """No step will be over any more; in the link's thread."""
        while self._awaited:
            done = self._awaited.popleft()
            if done is not None:
                done.set_exception(error)

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`: it is the unit's to tell."""
        return []

    def sleep(self, level: int) -> None:
        """See `Executor.sleep`."""
        ticket = self._unit.next_ticket()
        self._unit.ask(self._ranks, SleepRank(ticket, level), ticket).result()

    def wake_up(self) -> Future[None]:
        """See `Executor.wake_up`."""
        ticket = self._unit.next_ticket()
        answers = self._unit.ask(self._ranks, WakeRank(ticket), ticket)
        awake: Future[None] = Future()
        answers.add_done_callback(lambda future: _pass_on(future, awake, ConfigError))
        return awake

    @property
    def num_bytes(self) -> int:
        """See `Executor.num_bytes`."""
        return sum(self._unit.num_bytes[rank] for rank in self._ranks)

    def close(self) -> None:
        """See `Executor.close`: the unit ends its ranks."""

    def _send(self, plan: SchedulerOutput, done: Future[ModelOutput] | None) -> None:
        self._awaited.append(done)
        self.num_sent += 1
        self._unit.send(self._ranks, RunStep(plan))


def _pass_on(
    answers: "Future[list[Answer]]",
    done: Future[None],
    error_type: type[Exception] = InvalidRequestError,
) -> None:
    """Resolve a future by what the ranks have answered."""
    failure = answers.exception()
    if failure is not None:
        done.set_exception(failure)
        return
    error = next((answer.error for answer in answers.result() if answer.error), "")
    if error:
        done.set_exception(error_type(error))
    else:
        done.set_result(None)
