"""An executor that counts tokens and computes none, whose steps end when the unit's do."""

from concurrent.futures import Future
from dataclasses import dataclass

from leadline.engine.executor.base import Capacity
from leadline.engine.request import SamplingParams
from leadline.engine.step import (
    FOLLOWS,
    ModelOutput,
    NewRequest,
    RowOutput,
    ScheduledRow,
    SchedulerOutput,
)
from leadline.engine.survey import ExpertLoad

VOCAB_SIZE = 251
_FACTOR, _STEP, _RANGE = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03, 2**64


def mixed(seed: int, position: int) -> int:
    """64 bits that look random."""
    value = (seed * _FACTOR + position * _STEP + 1) % _RANGE
    return (value ^ (value >> 29)) * _FACTOR % _RANGE >> 17


@dataclass(slots=True)
class CountedRequest:
    """A request as this executor knows it."""

    params: SamplingParams
    num_prompt_tokens: int
    num_known_tokens: int
    num_computed_tokens: int = 0
    num_drafts: int = 0
    is_over: bool = False


class CountingExecutor:
    """`Executor` whose text is a function of a request's seed and the position alone.

    Attributes:
        rows: (new tokens, tokens of context with them) of the step in flight.
        num_drafts: most drafts that a row of it makes.
    """

    def __init__(self, capacity: Capacity, draft_acceptance: float) -> None:
        """`draft_acceptance`: probability that a draft is right, if those before it are."""
        self._capacity = capacity
        self._acceptance = draft_acceptance * (_RANGE >> 17)
        self._held: dict[str, CountedRequest] = {}
        self._step: tuple[Future[ModelOutput], ModelOutput] | None = None
        self.rows: list[tuple[int, int]] = []
        self.num_drafts = 0

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return self._capacity

    def prepare(self, params: SamplingParams) -> Future[None] | None:
        """See `Executor.prepare`."""
        return None

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `Executor.execute`; the future is done after `complete`."""
        assert self._step is None, "one step at a time"
        for request_id in plan.released_ids:
            del self._held[request_id]
        for request in plan.new_requests:
            self._hold(request)
        self.rows, self.num_drafts = [], 0
        outputs = [self._run_row(row) for row in plan.rows]
        output = ModelOutput(
            step_id=plan.step_id,
            rows=outputs,
            elapsed_s=0.0,
            num_draft_passes=sum(row.num_drafts for row in outputs),
            num_tokens=sum(new for new, _ in self.rows),
            num_context_tokens=sum(total for _, total in self.rows),
        )
        future: Future[ModelOutput] = Future()
        self._step = future, output
        return future

    def complete(self, elapsed_s: float) -> None:
        """The step in flight, if any, has taken so long."""
        if self._step is not None:
            future, output = self._step
            self._step = None
            output.elapsed_s = elapsed_s
            future.set_result(output)

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`; there are no experts."""
        return []

    def sleep(self, level: int) -> None:
        """See `Executor.sleep`."""
        self._held.clear()

    def wake_up(self) -> Future[None]:
        """See `Executor.wake_up`; the future is done on return."""
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @property
    def num_bytes(self) -> int:
        """See `Executor.num_bytes`; it holds nothing."""
        return 0

    def close(self) -> None:
        """See `Executor.close`."""
        self._held.clear()

    def _hold(self, request: NewRequest) -> None:
        self._held[request.request_id] = CountedRequest(
            request.params, request.num_prompt_tokens, len(request.token_ids)
        )

    def _run_row(self, row: ScheduledRow) -> RowOutput:
        held = self._held[row.request_id]
        if held.is_over:
            return RowOutput(token_ids=[], is_skipped=True)
        start = held.num_computed_tokens if row.start == FOLLOWS else row.start
        num_verified = min(row.num_verify, held.num_drafts)
        num_new = row.num_tokens + num_verified
        self.rows.append((num_new, start + num_new))
        held.num_computed_tokens = start + row.num_tokens
        if not row.samples:
            return RowOutput(token_ids=[])
        params, known = held.params, held.num_known_tokens
        num_accepted = 0
        while num_accepted < num_verified and self._is_right(params.seed, known + num_accepted):
            num_accepted += 1
        num_left = params.max_tokens - (known - held.num_prompt_tokens)
        num_tokens = min(num_accepted + 1, num_left)
        token_ids = [mixed(params.seed, known + i) % VOCAB_SIZE for i in range(num_tokens)]
        held.num_known_tokens = known + num_tokens
        held.num_computed_tokens = held.num_known_tokens - 1
        held.is_over = num_tokens == num_left
        held.num_drafts = 0 if held.is_over else row.num_drafts
        self.num_drafts = max(self.num_drafts, held.num_drafts)
        return RowOutput(
            token_ids,
            num_verified=num_verified,
            num_accepted=num_accepted,
            num_drafts=held.num_drafts,
        )

    def _is_right(self, seed: int, position: int) -> bool:
        return mixed(seed ^ 0x5DEECE66D, position) < self._acceptance
