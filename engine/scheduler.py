"""Decides what each step computes. There are no phases: known tokens are caught up with."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from leadline.engine.admission import QueueLimits, check_fits, queue_full
from leadline.engine.counters import Counters, collect_stats
from leadline.engine.deadlines import Deadlines, has_passed
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.errors import id_in_use
from leadline.engine.executor.base import Capacity
from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.kv_events import KVEventLog
from leadline.engine.messages import EngineStats
from leadline.engine.page_arrival import log_damage
from leadline.engine.prefill_share import PrefillShare
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.request_book import RequestBook
from leadline.engine.request_state import RequestState, RequestStatus
from leadline.engine.row_result import final_output, take_result
from leadline.engine.step import ModelOutput, RowOutput, ScheduledRow, SchedulerOutput
from leadline.engine.step_cost import StepSize
from leadline.engine.step_plan import PlannedStep, StepPlan
from leadline.engine.step_planner import StepPlanner
from leadline.engine.survey import EngineSurvey

MAX_STEPS_IN_FLIGHT = 2


class Scheduler:
    """Priority, then fair shares, then arrival, under a token budget, preempting by recomputation.

    Each step, a request's computed tokens catch up with its known tokens and drafts as far as the
    budget allows: that is prefill, chunked prefill, resumption and draft verification alike. Rows
    with one unknown successor (decode) come first, so that long prompts never hold them up; the
    rest of the budget goes to the others, in order.

    A request is admitted when the pool has pages for all its known tokens. Later it needs a page
    now and then; if none is left, the last running request in order loses its pages and waits.

    A step may be planned while the one before it runs. What that one will sample is not known then:
    rows follow it (`step.FOLLOWS`), and slots are reserved for drafts that may all be accepted.
    Whoever needs a page that is not there waits for the step in flight, after which requests may be
    preempted. Pages are freed only when no step in flight refers to them.

    Attributes:
        book: which requests are alive.
    """

    def __init__(
        self,
        capacity: Capacity,
        *,
        max_num_batched_tokens: int,
        prefix_caching: bool = True,
        draft_policy: DraftPolicy | None = None,
        prefill_share: PrefillShare | None = None,
        queue_limits: QueueLimits | None = None,
        events: KVEventLog | None = None,
        verify_pages: bool = False,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """An empty schedule.

        Args:
            capacity: what the executor holds.
            max_num_batched_tokens: most tokens a step, at least `capacity.max_num_seqs`.
            prefix_caching: share the full pages of equal beginnings.
            draft_policy: how many drafts a request proposes a step; None for no speculation.
            prefill_share: how many prompt tokens a step takes; None for all that there is room for.
            queue_limits: how much may wait; None for no limits.
            events: told which pages are cached and given away.
            verify_pages: have cached pages checked before a request uses them.
            now: the clock of arrivals and deadlines, which no setting of the time moves.
        """
        assert max_num_batched_tokens >= capacity.max_num_seqs, "a decode row could starve"
        self._capacity = capacity
        self._max_num_batched_tokens = max_num_batched_tokens
        self._drafts = draft_policy or DraftPolicy(0)
        self._share = prefill_share or PrefillShare(max_num_batched_tokens)
        self._limits = queue_limits or QueueLimits()
        self._now = now
        self._kv = KVCacheManager(
            capacity.num_pages,
            capacity.page_size,
            prefix_caching=prefix_caching,
            num_host_pages=capacity.num_host_pages,
            verify_pages=verify_pages,
            events=events,
            now=now,
        )
        self.book = RequestBook(capacity.max_num_seqs)
        self._planner = StepPlanner(
            self.book,
            self._kv,
            self._drafts,
            self._share,
            max_num_batched_tokens=max_num_batched_tokens,
            now=now,
        )
        self._deadlines = Deadlines()
        self._preparing: list[RequestState] = []
        self._in_flight: deque[PlannedStep] = deque()
        self._next_step_id = 0
        self._counters = Counters()

    def add(self, request: EngineRequest, prepared: "Future[None] | None" = None) -> None:
        """Take a request into the waiting queue; it is not admitted before `prepared` is done.

        Raises:
            InvalidRequestError: a bad value, or the id of a request that is still alive.
            PromptTooLongError: it could never be completed, however long it waited.
            QueueFullError: too much waits already.
        """
        if request.request_id in self.book.requests:
            raise id_in_use(request.request_id)
        check_fits(request, self._capacity)
        num_waiting_tokens = self.book.waiting.num_tokens + len(request.prompt_ids)
        reason = self._limits.rejection(
            num_waiting=len(self.book.waiting),
            num_seats=self.book.num_seats,
            num_tokens=num_waiting_tokens,
        )
        if reason is not None and request.resumption is None:  # that has been taken already
            self._counters.rejections[reason] += 1
            retry_after_s = self._share.cost.per_token_s * num_waiting_tokens
            raise queue_full(reason, self._limits, retry_after_s)
        state = RequestState.of(request, self.book.next_number(), prepared, now_s=self._now())
        self.book.arrive(state)
        self._deadlines.add(request.request_id, request.deadline_s)
        if prepared is not None:
            self._preparing.append(state)

    def finish(
        self, request_id: str, reason: FinishReason, error: str | None = None
    ) -> RequestOutput | None:
        """End a request at once, at any point of its life.

        Returns its final output, or None if the request is unknown or has ended already.
        """
        if (state := self.book.requests.get(request_id)) is None:
            return None
        self._retire(state)
        return final_output(state, reason, error, now_s=self._now())

    def finish_all(self, reason: FinishReason) -> list[RequestOutput]:
        """End every request; returns their final outputs."""
        outputs = (self.finish(request_id, reason) for request_id in list(self.book.requests))
        return [output for output in outputs if output is not None]

    def sweep(self) -> list[RequestOutput]:
        """End what is past its deadline, or could not be prepared; returns the final outputs."""
        outputs = []
        for request_id, _ in self._deadlines.pop_due(self._now()):
            if (state := self.book.requests.get(request_id)) is not None:
                error = has_passed(state.request)
                outputs.append(self.finish(request_id, FinishReason.ABORT, error))
        for state in [s for s in self._preparing if s.prepared is not None and s.prepared.done()]:
            self._preparing.remove(state)
            failure = state.prepared.exception() if state.prepared is not None else None
            if failure is not None:
                outputs.append(self.finish(state.request_id, FinishReason.ERROR, str(failure)))
        return [output for output in outputs if output is not None]

    def idle_s(self) -> float | None:
        """Seconds until `sweep` may have something to end, without any step; None for never."""
        return self._deadlines.idle_s(self._now())

    def reset_prefix_cache(self) -> int:
        """Forget all cached pages; returns how many of the pool there were."""
        return self._kv.reset()

    @property
    def num_requests(self) -> int:
        """Requests whose final output has not been made."""
        return len(self.book.requests)

    def has_work(self) -> bool:
        """Whether a step is worth taking: for requests, or to let the executor drop ended ones."""
        return self.book.has_work

    def schedule(self, *, takes_prompts: bool = True) -> SchedulerOutput | None:
        """Plan the next step; its output goes to `update`, in order.

        Returns None if there is nothing to plan until the step in flight is over or, where none is,
        until a request has been prepared. Unless it `takes_prompts`, these wait for a later step.
        """
        is_ahead = bool(self._in_flight)
        assert len(self._in_flight) < MAX_STEPS_IN_FLIGHT, "too many steps in flight"
        if is_ahead and self._planner.needs_room:
            return None
        only = self.book.next_suspect()
        if only is not None and any(s is not only for p in self._in_flight for s in p.states):
            return None
        plan = self._planner.plan(is_ahead=is_ahead, only=only, takes_prompts=takes_prompts)
        if plan.rows or plan.loading or (self.book.has_released and not is_ahead):
            return self._emit(plan)
        may_wait = is_ahead or only or not takes_prompts or not self.book.running
        assert may_wait, "the pool is too small for the first one"
        return None

    def update(self, output: ModelOutput) -> list[RequestOutput]:
        """Take in what the oldest step in flight produced; the new tokens, finals included."""
        step = self._in_flight.popleft()
        assert step.plan.step_id == output.step_id, "outputs of another step"
        self._counters.count_step(output)
        self._drafts.observe(step.plan, output)
        if output.num_tokens:
            size = StepSize(output.num_tokens, step.size.num_pairs, output.num_draft_passes)
            self._share.cost.add(size, output.elapsed_s)
        if step.loading:
            self._finish_loads(step.loading, output)
        outputs = []
        for state, row, result in zip(step.states, step.plan.rows, output.rows, strict=True):
            finished = self._take(state, row, result)
            if finished is not None:
                outputs.append(finished)
        return outputs

    def stats(self) -> EngineStats:
        """Gauges of this moment, and counters since start."""
        stats = collect_stats(self.book, self._kv, self._counters, self._drafts.counts)
        stats.num_preemptions = self._planner.num_preemptions
        stats.num_deferred = sum(s.status is RequestStatus.WAITING for s in self._preparing)
        sizes = (step.size for step in self._in_flight)
        stats.predicted_step_s = max(map(self._share.cost.predict, sizes), default=0.0)
        return stats

    def survey(self) -> EngineSurvey:
        """How pages and queue stand; the expert load is the executor's to tell."""
        waiting = self.book.waiting
        return EngineSurvey(
            page_size=self._kv.page_size,
            pages=self._kv.page_states(),
            num_waiting_tokens=waiting.num_tokens,
            oldest_waiting_s=waiting.oldest_s(self._now()),
            draft_depth=self._drafts.depth,
        )

    def check(self) -> None:
        """Assert the invariants of pages and queues; for tests."""
        self._kv.check()
        self.book.check()
        if not self.book.requests and not self._in_flight:
            assert self._kv.num_referenced_pages == 0, "pages are held by nobody"

    def _finish_loads(self, states: list[RequestState], output: ModelOutput) -> None:
        failed_loads = set(output.failed_loads)
        damaged_ids = self._kv.drop_damaged(output.damaged_page_ids)
        self._counters.num_corrupted_pages += len(damaged_ids) + len(failed_loads)
        log_damage(damaged_ids, failed_loads, states)
        for state in states:
            is_whole = self._kv.finish_load(state, failed_loads)
            if state.status is RequestStatus.FINISHED:
                self._kv.free(state)
            elif is_whole:
                self.book.start(state)
            else:
                self.book.stop_loading(state)

    def _emit(self, plan: StepPlan) -> SchedulerOutput:
        output = SchedulerOutput(
            step_id=self._next_step_id,
            new_requests=plan.new_requests,
            rows=plan.rows,
            released_ids=self.book.take_released_ids(),
            num_tokens=self._max_num_batched_tokens - plan.num_tokens_left,
            page_moves=self._kv.take_moves(),
            checked_page_ids=self._kv.take_checks(),
        )
        self._next_step_id += 1
        self._in_flight.append(PlannedStep(output, plan.states, plan.loading, plan.size()))
        return output

    def _take(
        self, state: RequestState, row: ScheduledRow, result: RowOutput
    ) -> RequestOutput | None:
        """Take in one row's result; what is to be told of it."""
        assert state.rows_in_flight.pop(0) is row, "rows are taken in as they were planned"
        if result.is_corrupt:
            self._counters.count_corrupted()
        if result.error is not None:
            self._kv.distrust(state)
        if state.status is RequestStatus.FINISHED:
            if not state.is_in_flight:
                self._kv.free(state)
            return None
        assert not result.is_skipped, f"{state.request_id} has not ended"
        if result.error is not None:
            self._retire(state)
            return final_output(state, FinishReason.ERROR, result.error, now_s=self._now())
        is_first = state.num_output_tokens == 0
        output = take_result(state, row, result, now_s=self._now())
        self._kv.commit(state)
        if output is not None:
            num_tokens = len(output.token_ids)
            self._counters.count_tokens(state, num_tokens, is_first=is_first)
            self.book.tenants.charge(state.request.tenant, num_output_tokens=num_tokens)
            if output.finish_reason is not None:
                self._retire(state)
        return output

    def _retire(self, state: RequestState) -> None:
        """Take a request out of the books; its pages wait for the steps that use them."""
        self.book.retire(state)
        self._deadlines.remove(state.request_id)
        if not state.is_in_flight:
            self._kv.free(state)
