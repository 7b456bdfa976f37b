"""Sessions sent to a simulated unit, and what their users see of it."""

import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.simulation.unit import SimulatedUnit
from benchmarks.simulation.workload import Session
from leadline.engine.request import RequestOutput, SamplingParams


@dataclass(slots=True)
class Watched:
    """A request in flight."""

    session: Session
    begin_s: float
    last_s: float | None = None


@dataclass(slots=True)
class Loss:
    """A rank that dies.

    Attributes:
        recovery_s: until the others go on.
        on_loss: is told of the rank: what the others have to take over.
    """

    rank: int
    at_s: float
    recovery_s: float
    on_loss: Callable[[int], None]


@dataclass(slots=True)
class Seen:
    """What users have seen.

    Attributes:
        ttft_s: of each request.
        itl_s: between two tokens of a request, by output.
        gap_tokens: tokens that the output had; drafts come together.
        num_requests: that are over.
    """

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    gap_tokens: list[int] = field(default_factory=list)
    num_requests: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0


class Trial:
    """One simulation.

    Attributes:
        seen: by the users.
        wall_s: seconds that the simulation took.
    """

    def __init__(
        self, unit: SimulatedUnit, sessions: Iterator[Session], loss: Loss | None = None
    ) -> None:
        self.unit = unit
        self.seen = Seen()
        self.wall_s = 0.0
        self._loss = loss
        self._numbers = itertools.count()
        self._sessions = sessions
        self._events: list[tuple[float, int, Session]] = []
        self._watched: dict[str, Watched] = {}
        self._take_session()

    def run(self, until_s: float) -> None:
        """Until no request is left, or the unit's clock is there."""
        begin_s = time.perf_counter()
        unit = self.unit
        while (self._events or unit.has_work()) and unit.clock.now() < until_s:
            if not unit.has_work():
                unit.clock.advance(max(0.0, self._events[0][0] - unit.clock.now()))
            self._submit_due()
            if self._loss is not None and unit.clock.now() >= self._loss.at_s:
                self._loss.on_loss(self._loss.rank)
                unit.lose(self._loss.rank, self._loss.recovery_s)
                self._loss = None
            unit.step(self)
        self.wall_s = time.perf_counter() - begin_s

    def _take_session(self) -> None:
        session = next(self._sessions, None)
        if session is not None:
            heapq.heappush(self._events, (session.arrival_s, next(self._numbers), session))

    def _submit_due(self) -> None:
        while self._events and self._events[0][0] <= self.unit.clock.now():
            due_s, number, session = heapq.heappop(self._events)
            if due_s == session.arrival_s:
                self._take_session()
            turn = session.turns[0]
            session.token_ids = session.token_ids + turn.new_ids
            request_id = str(number)
            params = SamplingParams(seed=number, max_tokens=turn.num_output_tokens, ignore_eos=True)
            self._watched[request_id] = Watched(session, due_s)
            self.unit.submit(request_id, session.token_ids, params, session.session_id)

    def on_output(self, request_id: str, output: RequestOutput, now_s: float) -> None:
        """See `Listener.on_output`."""
        watched, seen = self._watched[request_id], self.seen
        if watched.last_s is None:
            seen.ttft_s.append(now_s - watched.begin_s)
            seen.num_prompt_tokens += len(watched.session.token_ids)
            seen.num_cached_tokens += output.num_cached_tokens
        else:
            seen.itl_s.append((now_s - watched.last_s) / len(output.token_ids))
            seen.gap_tokens.append(len(output.token_ids))
        watched.last_s = now_s
        seen.num_output_tokens += len(output.token_ids)
        session = watched.session
        session.token_ids = session.token_ids + output.token_ids
        if output.finish_reason is not None:
            del self._watched[request_id]
            seen.num_requests += 1
            session.turns.pop(0)
            if session.turns:
                next_s = now_s + session.turns[0].pause_s
                heapq.heappush(self._events, (next_s, next(self._numbers), session))

    def percentiles(self, name: str) -> dict[str, float]:
        """p50, p90 and p99 of `ttft_s` or `itl_s`; of nothing, NaN."""
        values = np.array(getattr(self.seen, name) or [np.nan])
        points = np.percentile(values, [50, 90, 99])
        return dict(zip(("p50", "p90", "p99"), points.tolist(), strict=True))
