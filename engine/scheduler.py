"""Decides what each step computes. There are no phases: known tokens are caught up with."""

from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from leadline.engine.admission import check_fits
from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.errors import InvalidRequestError
from leadline.engine.executor.base import Capacity
from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.request_state import RequestState, RequestStatus
from leadline.engine.step import ModelOutput, RowOutput, ScheduledRow, SchedulerOutput
from leadline.engine.step_plan import StepPlan


class Scheduler:
    """First come, first served, under a token budget, with preemption by recomputation.

    Each step, a request's computed tokens catch up with its known tokens and drafts as far as the
    budget allows: that is prefill, chunked prefill, resumption and draft verification alike. Rows
    with one unknown successor (decode) come first, so that long prompts never hold them up; the
    rest of the budget goes to the others, the oldest first.

    A request is admitted when the pool has pages for all its known tokens. Later it needs a page
    now and then; if none is left, the youngest running request loses its pages and goes back to
    the head of the waiting queue. Running requests are hence always older than waiting ones.

    Pages are freed only when no step in flight refers to them. At most one step is in flight.
    """

    def __init__(
        self,
        capacity: Capacity,
        *,
        max_num_batched_tokens: int,
        prefix_caching: bool = True,
        draft_policy: DraftPolicy | None = None,
    ) -> None:
        """An empty schedule.

        Args:
            capacity: what the executor holds.
            max_num_batched_tokens: most tokens a step, at least `capacity.max_num_seqs`.
            prefix_caching: share the full pages of equal beginnings.
            draft_policy: how many drafts a request proposes a step; None for no speculation.
        """
        assert max_num_batched_tokens >= capacity.max_num_seqs, "a decode row could starve"
        self._capacity = capacity
        self._max_num_batched_tokens = max_num_batched_tokens
        self._drafts = draft_policy or DraftPolicy(0)
        self._kv = KVCacheManager(
            capacity.num_pages, capacity.page_size, prefix_caching=prefix_caching
        )
        self._requests: dict[str, RequestState] = {}
        self._running: list[RequestState] = []
        self._waiting: deque[RequestState] = deque()
        self._released_ids: list[str] = []
        self._in_flight: Sequence[RequestState] | None = None
        self._next_step_id = 0
        self._stats = EngineStats()

    def add(self, request: EngineRequest) -> None:
        """Take a request into the waiting queue.

        Raises:
            InvalidRequestError: a bad value, or the id of a request that is still alive.
            PromptTooLongError: it could never be completed, however long it waited.
        """
        if request.request_id in self._requests:
            raise InvalidRequestError(
                f"request id {request.request_id!r} is in use by a running request; "
                "give each request an id of its own",
                param="request_id",
            )
        check_fits(request, self._capacity)
        state = RequestState.of(request)
        self._requests[request.request_id] = state
        self._waiting.append(state)

    def finish(self, request_id: str, reason: FinishReason) -> RequestOutput | None:
        """End a request at once, at any point of its life.

        Returns its final output, or None if the request is unknown or has ended already.
        """
        state = self._requests.get(request_id)
        if state is None:
            return None
        if state.status is RequestStatus.RUNNING:
            self._running.remove(state)
        else:
            self._waiting.remove(state)
        self._retire(state)
        return self._output(state, [], reason)

    def finish_all(self, reason: FinishReason) -> list[RequestOutput]:
        """End every request; returns their final outputs."""
        outputs = (self.finish(request_id, reason) for request_id in list(self._requests))
        return [output for output in outputs if output is not None]

    @property
    def num_requests(self) -> int:
        """Requests whose final output has not been made."""
        return len(self._requests)

    def has_work(self) -> bool:
        """Whether a step is worth taking: for requests, or to let the executor drop ended ones."""
        return bool(self._requests or self._released_ids)

    def schedule(self) -> SchedulerOutput:
        """Plan the next step; its output goes to `update` before the next call."""
        assert self._in_flight is None, "the step before has not been updated"
        num_drafts = self._drafts.depth(len(self._running))
        plan = StepPlan(self._max_num_batched_tokens, num_drafts)
        num_waiting = len(self._waiting)
        self._schedule_running(plan)
        if len(self._waiting) == num_waiting:  # nobody was preempted: there may be room
            self._admit_waiting(plan)
        assert plan.rows or not self._requests, "the pool is too small for the oldest request"
        for state in plan.states:
            state.num_steps_in_flight += 1
        self._in_flight = plan.states
        released_ids, self._released_ids = self._released_ids, []
        step_id = self._next_step_id
        self._next_step_id += 1
        return SchedulerOutput(
            step_id=step_id,
            new_requests=plan.new_requests,
            rows=plan.rows,
            released_ids=released_ids,
            num_tokens=self._max_num_batched_tokens - plan.num_tokens_left,
        )

    def update(self, plan: SchedulerOutput, output: ModelOutput) -> list[RequestOutput]:
        """Take in what a step produced; returns the new tokens, finals included, in row order."""
        states = self._in_flight
        assert states is not None, "no step is in flight"
        assert plan.step_id == output.step_id == self._next_step_id - 1, "outputs of another step"
        self._in_flight = None
        self._stats.num_steps += 1
        self._drafts.observe(plan, output)
        outputs = []
        for state, row, result in zip(states, plan.rows, output.rows, strict=True):
            state.num_steps_in_flight -= 1
            if result.error is not None:
                self._kv.discard(state)
            if state.status is RequestStatus.FINISHED:
                self._kv.free(state)
            elif result.error is not None:
                self._retire(state)
                outputs.append(self._output(state, [], FinishReason.ERROR, error=result.error))
            elif row.samples:
                outputs.append(self._take_tokens(state, row, result))
            else:
                assert not result.token_ids, "a row that does not sample has no tokens"
                state.num_computed_tokens = row.start + row.num_tokens
                self._kv.commit(state)
        self._running = [s for s in self._running if s.status is RequestStatus.RUNNING]
        return outputs

    def stats(self) -> EngineStats:
        """Gauges of this moment, and counters since start."""
        return replace(
            self._stats,
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            page_usage=self._kv.num_referenced_pages / self._kv.num_pages,
            prefix_cache_queries=self._kv.num_queried_tokens,
            prefix_cache_hits=self._kv.num_hit_tokens,
            num_drafts=self._drafts.counts.num_drafts,
            num_draft_tokens=self._drafts.counts.num_draft_tokens,
            num_accepted_per_pos=list(self._drafts.counts.num_accepted_per_pos),
        )

    def check(self) -> None:
        """Assert the invariants of pages and queues; for tests."""
        self._kv.check()
        alive = [*self._running, *self._waiting]
        assert {id(state) for state in alive} == {id(s) for s in self._requests.values()}
        if not alive and self._in_flight is None:
            assert self._kv.num_referenced_pages == 0, "pages are held by nobody"

    def _schedule_running(self, plan: StepPlan) -> None:
        decoding: list[RequestState] = []
        prefilling: list[RequestState] = []
        for state in self._running:
            is_decode = len(state.token_ids) - state.num_computed_tokens == 1
            (decoding if is_decode else prefilling).append(state)
        num_draft_tokens_left = plan.num_tokens_left - len(decoding)
        for state in decoding:
            if state.status is not RequestStatus.RUNNING:
                continue  # preempted for an older one
            num_useful = state.max_tokens - state.num_output_tokens - 1
            draft_ids = state.draft_ids[: min(num_useful, num_draft_tokens_left)]
            # Slots for the drafts that follow this step, if there is room for them.
            num_ahead = state.useful_drafts(plan.num_drafts)
            new_page_ids = self._kv.allocate(state, 1 + len(draft_ids) + num_ahead)
            if new_page_ids is None:
                new_page_ids = self._kv.allocate(state, 1 + len(draft_ids))
            if new_page_ids is None:
                draft_ids = []
                new_page_ids = self._make_room(state)
            if new_page_ids is not None:
                num_draft_tokens_left -= len(draft_ids)
                plan.add_row(state, 1 + len(draft_ids), new_page_ids, draft_ids)
        for state in prefilling:
            if state.status is RequestStatus.RUNNING and plan.num_tokens_left > 0:
                num_missing = len(state.token_ids) - state.num_computed_tokens
                plan.add_row(state, min(num_missing, plan.num_tokens_left), [], [])

    def _admit_waiting(self, plan: StepPlan) -> None:
        max_num_seqs = self._capacity.max_num_seqs
        while self._waiting and plan.num_tokens_left > 0 and len(self._running) < max_num_seqs:
            state = self._waiting[0]
            self._kv.match(state)
            num_missing = len(state.token_ids) - state.num_computed_tokens
            if self._kv.allocate(state, num_missing) is None:
                self._kv.free(state)
                return
            if state.num_cached_tokens is None:
                self._kv.record_lookup(state)
                state.num_cached_tokens = state.num_computed_tokens
            self._waiting.popleft()
            self._running.append(state)
            state.status = RequestStatus.RUNNING
            state.is_held = True
            plan.add_new(state)

    def _make_room(self, state: RequestState) -> list[int] | None:
        """Preempt from the youngest on until one more token of `state` has a slot.

        Returns the appended page ids, or None if `state` itself was the youngest.
        """
        while (new_page_ids := self._kv.allocate(state, 1)) is None:
            assert len(self._running) > 1, "admission let in a request larger than the pool"
            victim = self._running.pop()
            self._kv.free(victim)
            self._release(victim)
            victim.draft_ids = []
            victim.status = RequestStatus.WAITING
            self._waiting.appendleft(victim)
            self._stats.num_preemptions += 1
            if victim is state:
                return None
        return new_page_ids

    def _take_tokens(
        self, state: RequestState, row: ScheduledRow, result: RowOutput
    ) -> RequestOutput:
        """Append a row's sampled tokens up to the one that ends the request, if any does."""
        num_accepted = len(result.token_ids) - 1
        assert result.token_ids[:-1] == row.draft_ids[:num_accepted], "accepted are no drafts"
        state.draft_ids = result.draft_ids
        num_output_tokens = state.num_output_tokens
        if num_output_tokens == 0:
            self._stats.prompt_tokens += state.num_prompt_tokens
        reason, num_kept = None, 0
        params = state.request.params
        for token_id in result.token_ids:
            state.token_ids.append(token_id)
            num_kept += 1
            if params.ends_text(token_id):
                reason = FinishReason.STOP
                break
            if num_output_tokens + num_kept == state.max_tokens:
                reason = FinishReason.LENGTH
                break
        self._stats.generation_tokens += num_kept
        num_verified = row.start + row.num_tokens - len(row.draft_ids) + num_accepted
        state.num_computed_tokens = min(num_verified, len(state.token_ids))
        self._kv.commit(state)
        if reason is not None:
            self._retire(state)
        output = self._output(state, result.token_ids[:num_kept], reason)
        if reason is FinishReason.STOP:
            output.stop_token_id = state.token_ids[-1]
        return output

    def _retire(self, state: RequestState) -> None:
        """Take a request out of the books; its pages wait for the step that uses them."""
        del self._requests[state.request_id]
        state.status = RequestStatus.FINISHED
        self._release(state)
        if state.num_steps_in_flight == 0:
            self._kv.free(state)

    def _release(self, state: RequestState) -> None:
        if state.is_held:
            self._released_ids.append(state.request_id)
            state.is_held = False

    @staticmethod
    def _output(
        state: RequestState,
        token_ids: list[int],
        reason: FinishReason | None,
        *,
        error: str | None = None,
    ) -> RequestOutput:
        return RequestOutput(
            request_id=state.request_id,
            token_ids=token_ids,
            finish_reason=reason,
            num_cached_tokens=state.num_cached_tokens or 0,
            error=error,
        )
