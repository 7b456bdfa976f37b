"""A unit of ranks in lock-step: the product's schedulers and router on a clock of their own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.simulation.executor import CountingExecutor
from leadline.engine.clock import VirtualClock
from leadline.engine.core import EngineCore
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.executor.base import Capacity
from leadline.engine.prefill_share import PrefillShare
from leadline.engine.request import (
    EngineRequest,
    RequestOutput,
    Resumption,
    SamplingParams,
    SpeculationCounts,
)
from leadline.engine.routing.policies import make_policy
from leadline.engine.routing.router import Router
from leadline.engine.scheduler import Scheduler

StepTime = Callable[[list[list[tuple[int, int]]], int], float]
"""Seconds of a step, from each living rank's rows (new tokens, context) and the drafts a row."""


class Listener(Protocol):
    """Is told what the unit does."""

    def on_output(self, request_id: str, output: RequestOutput, now_s: float) -> None:
        """New tokens of a request."""
        ...


@dataclass(slots=True)
class Rank:
    """One data-parallel rank."""

    core: EngineCore
    executor: CountingExecutor


@dataclass(slots=True)
class OpenRequest:
    """A request that is not over."""

    prompt_ids: list[int]
    params: SamplingParams
    session_id: str
    token_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class UnitCounts:
    """Since start.

    Attributes:
        num_rank_tokens: sums over steps of what all ranks computed.
        num_peak_tokens: of what the ranks would have computed, had all done as much as the busiest.
        num_rank_requests: sums over steps of the requests that all ranks had.
        num_peak_requests: of what they would have had, had all had as many as the busiest.
        num_resumed: requests of dead ranks.
    """

    num_steps: int = 0
    num_rank_tokens: int = 0
    num_peak_tokens: int = 0
    num_rank_requests: int = 0
    num_peak_requests: int = 0
    num_resumed: int = 0


class SimulatedUnit:
    """See the module.

    Attributes:
        clock: what time it is in the unit.
        router: chooses the ranks.
        counts: since start.
    """

    def __init__(
        self,
        num_ranks: int,
        capacity: Capacity,
        step_time: StepTime,
        *,
        policy: str,
        max_num_batched_tokens: int,
        num_drafts: int = 0,
        draft_acceptance: float = 0.85,
        target_itl_s: float | None = None,
    ) -> None:
        self.clock = VirtualClock()
        self.counts = UnitCounts()
        self._step_time = step_time
        self._open: dict[str, OpenRequest] = {}
        self.router = Router(
            make_policy(policy),
            num_ranks,
            num_pages=capacity.num_pages,
            page_size=capacity.page_size,
        )
        self._ranks = [
            self._make_rank(
                capacity, max_num_batched_tokens, num_drafts, draft_acceptance, target_itl_s
            )
            for _ in range(num_ranks)
        ]

    def _make_rank(
        self,
        capacity: Capacity,
        max_num_batched_tokens: int,
        num_drafts: int,
        draft_acceptance: float,
        target_itl_s: float | None,
    ) -> Rank:
        executor = CountingExecutor(capacity, draft_acceptance)
        scheduler = Scheduler(
            capacity,
            max_num_batched_tokens=max_num_batched_tokens,
            draft_policy=DraftPolicy(num_drafts),
            prefill_share=PrefillShare(max_num_batched_tokens, target_itl_s=target_itl_s),
            now=self.clock.now,
        )
        return Rank(EngineCore(scheduler, executor, max_steps=1), executor)

    @property
    def living(self) -> list[Rank]:
        """Ranks that take part in steps."""
        pairs = zip(self._ranks, self.router.loads, strict=True)
        return [rank for rank, load in pairs if load.is_alive]

    @property
    def num_preemptions(self) -> int:
        """Since start."""
        return sum(rank.core.stats().num_preemptions for rank in self._ranks)

    def has_work(self) -> bool:
        """Whether a request is open."""
        return bool(self._open)

    def submit(
        self, request_id: str, prompt_ids: list[int], params: SamplingParams, session_id: str = ""
    ) -> None:
        """Send a request to the rank that the router chooses."""
        self._open[request_id] = OpenRequest(prompt_ids, params, session_id)
        self._send(request_id)

    def _send(self, request_id: str) -> None:
        known = self._open[request_id]
        resumption = None
        if known.token_ids:
            resumption = Resumption(
                token_ids=list(known.token_ids),
                num_cached_tokens=0,
                speculation=SpeculationCounts(),
            )
        rank = self.router.route(
            request_id, known.prompt_ids + known.token_ids, session_id=known.session_id
        )
        self._ranks[rank].core.submit(
            EngineRequest(
                request_id=request_id,
                prompt_ids=known.prompt_ids,
                params=known.params,
                arrival_s=self.clock.now(),
                resumption=resumption,
            )
        )

    def step(self, listener: Listener) -> None:
        """A step of all living ranks, those without work included."""
        ranks = self.living
        for rank in ranks:
            rank.executor.rows = []
            rank.core.start_steps()
        rows = [rank.executor.rows for rank in ranks]
        elapsed_s = self._step_time(rows, max(rank.executor.num_drafts for rank in ranks))
        self.clock.advance(elapsed_s)
        tokens = [sum(new for new, _ in own) for own in rows]
        self.counts.num_steps += 1
        self.counts.num_rank_tokens += sum(tokens)
        self.counts.num_peak_tokens += max(tokens) * len(tokens)
        requests = [load.num_requests for load in self.router.loads if load.is_alive]
        self.counts.num_rank_requests += sum(requests)
        self.counts.num_peak_requests += max(requests) * len(requests)
        for rank in ranks:
            rank.executor.complete(elapsed_s)
            if rank.core.num_steps_in_flight:
                for output in rank.core.complete_step():
                    self._take(output, listener)

    def _take(self, output: RequestOutput, listener: Listener) -> None:
        request_id = output.request_id
        self._open[request_id].token_ids += output.token_ids
        self.router.take_tokens(request_id, output.token_ids)
        if output.finish_reason is not None:
            self.router.end(request_id)
            del self._open[request_id]
        listener.on_output(request_id, output, self.clock.now())

    def lose(self, rank: int, recovery_s: float) -> None:
        """A rank dies between two steps; the others go on with its requests after a while."""
        lost = self.router.mask(rank)
        self.clock.advance(recovery_s)
        self.counts.num_resumed += len(lost)
        for request_id in lost:
            self._send(request_id)
