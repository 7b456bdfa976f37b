"""Makes the plan of a step: who computes what, within the token budget and the pages."""

from collections.abc import Callable, Iterator

from leadline.engine.draft_policy import DraftPolicy
from leadline.engine.kv_cache_manager import KVCacheManager
from leadline.engine.prefill_share import PrefillShare, PromptWait
from leadline.engine.request_book import RequestBook
from leadline.engine.request_state import RequestState, RequestStatus
from leadline.engine.step_plan import StepPlan

_MAX_PROMPTS_LOOKED_AT = 64  # when the prompt share of a step is sized


class StepPlanner:
    """Rows with one unknown successor (decode) first, then prompts, then who waits.

    Attributes:
        num_preemptions: requests that lost their pages, since start.
        needs_room: a request was left out of the last plan for want of pages: the next one is to be
            made with no step in flight, so that another may be preempted.
    """

    def __init__(
        self,
        book: RequestBook,
        kv: KVCacheManager,
        drafts: DraftPolicy,
        share: PrefillShare,
        *,
        max_num_batched_tokens: int,
        now: Callable[[], float],
    ) -> None:
        """See `scheduler.Scheduler`."""
        self.num_preemptions = 0
        self.needs_room = False
        self._book = book
        self._kv = kv
        self._drafts = drafts
        self._share = share
        self._max_num_batched_tokens = max_num_batched_tokens
        self._now = now

    def plan(
        self, *, is_ahead: bool, only: RequestState | None = None, takes_prompts: bool = True
    ) -> StepPlan:
        """The next step.

        Args:
            is_ahead: another one is in flight.
            only: the one request that it is to compute; None for all.
            takes_prompts: whether it has prompts, unless it is `only` for one request.
        """
        self.needs_room = False
        running = [s for s in self._book.running if only is None or s is only]
        going = [state for state in running if not state.is_surely_over]
        decoding = [s for s in going if s.samples_in_flight or s.num_missing_tokens == 1]
        prefilling = [s for s in going if not s.samples_in_flight and s.num_missing_tokens > 1]
        depth = self._drafts.begin_step(len(decoding))
        plan = StepPlan(self._max_num_batched_tokens, self._max_num_batched_tokens)
        num_preemptions = self.num_preemptions
        self._plan_decodes(plan, decoding, is_ahead=is_ahead)
        if not takes_prompts and only is None:
            return plan
        if self._share.is_limited:
            prompts = self._prompts(prefilling)
            plan.num_prefill_tokens_left = self._share.num_tokens(plan.size(), prompts)
        for state in prefilling:
            if state.status is RequestStatus.RUNNING and plan.room_for_prompts > 0:
                self._add_prefill(plan, state, depth)
        if not self.needs_room and self.num_preemptions == num_preemptions:
            if only is None:
                self._admit_waiting(plan, depth, self._book.waiting.candidates())
            elif only.status is RequestStatus.WAITING and not is_ahead:
                self._make_way(only)
                self._admit_waiting(plan, depth, iter([only]))
        return plan

    def _plan_decodes(
        self, plan: StepPlan, decoding: list[RequestState], *, is_ahead: bool
    ) -> None:
        num_draft_tokens_left = plan.num_tokens_left - len(decoding)
        for state in decoding:
            if state.status is not RequestStatus.RUNNING:
                continue  # preempted for one before it
            if state.samples_in_flight:
                num_sampled, num_held = 1, state.rows_in_flight[-1].num_drafts
                num_slots = len(state.token_ids) + state.num_drafts_in_flight + 1
            else:
                num_sampled, num_held = 0, state.num_held_drafts
                num_slots = len(state.token_ids)
            num_useful = state.useful_drafts(num_held, num_sampled)
            num_verify = max(0, min(num_useful, num_draft_tokens_left))
            num_drafts = self._drafts.depth_of(state.speculation)
            num_drafts = state.useful_drafts(num_drafts, num_sampled + 1)
            # Slots for the drafts that follow this step, if there is room for them.
            new_page_ids = self._kv.allocate(state, num_slots + num_verify + num_drafts)
            if new_page_ids is None:
                new_page_ids = self._kv.allocate(state, num_slots + num_verify)
            if new_page_ids is None:
                num_verify = 0
                new_page_ids = self._make_room(state, num_slots, is_ahead=is_ahead)
            if new_page_ids is not None:
                num_draft_tokens_left -= num_verify
                pages = self._hand_over(plan, state, new_page_ids)
                plan.add_decode(state, pages, num_verify, num_drafts)

    def _add_prefill(self, plan: StepPlan, state: RequestState, depth: int) -> None:
        pages = self._hand_over(plan, state, [])
        num_tokens = min(state.num_missing_tokens, plan.room_for_prompts)
        plan.add_prefill(state, num_tokens, pages, state.useful_drafts(depth, 1))

    def _hand_over(self, plan: StepPlan, state: RequestState, new_page_ids: list[int]) -> list[int]:
        """The pages that a row brings: all, where the executor does not hold the request."""
        if state.is_held:
            return new_page_ids
        plan.hand_over(state)
        return list(state.page_ids)

    def _admit_waiting(
        self, plan: StepPlan, depth: int, candidates: Iterator[RequestState]
    ) -> None:
        for state in candidates:
            if plan.room_for_prompts <= 0 or self._book.num_seats <= 0:
                return
            if not self._is_ready(state):
                continue
            if not self._kv.admit(state):
                return  # whoever comes after it must not take its pages
            if state.admitted_s is None:
                state.admitted_s = self._now()
            if state.is_loading:
                self._book.start_loading(state)
                plan.loading.append(state)
            else:
                self._book.start(state)
                self._add_prefill(plan, state, depth)

    def _is_ready(self, state: RequestState) -> bool:
        if self._book.holds(state):
            return False
        if state.prepared is not None and not state.prepared.done():
            return False
        leader = self._book.requests.get(state.request.leader_id or "")
        if leader is None or state.num_output_tokens > 0 or state.is_suspect:
            return True
        page_size = self._kv.page_size
        return leader.num_computed_tokens >= (leader.num_prompt_tokens - 1) // page_size * page_size

    def _make_way(self, state: RequestState) -> None:
        """Preempt others until a request that is to run alone has a seat and pages."""
        num_pages = self._kv.pages_for(len(state.token_ids))
        while self._book.running and (
            self._book.num_seats <= 0 or self._kv.num_available_pages < num_pages
        ):
            victim = self._book.running[-1]
            self._kv.free(victim)
            self._book.preempt(victim)
            self.num_preemptions += 1

    def _make_room(
        self, state: RequestState, num_slots: int, *, is_ahead: bool
    ) -> list[int] | None:
        """Preempt from the last in order on until a request has its slots.

        Returns the appended page ids, or None if it has to wait: for the step in flight, or because
        it was itself the last.
        """
        if is_ahead:
            self.needs_room = True
            return None
        running = self._book.running
        while (new_page_ids := self._kv.allocate(state, num_slots)) is None:
            assert len(running) > 1, "admission let in a request larger than the pool"
            victim = running[-1]
            self._kv.free(victim)
            self._book.preempt(victim)
            self.num_preemptions += 1
            if victim is state:
                return None
        return new_page_ids

    def _prompts(self, prefilling: list[RequestState]) -> list[PromptWait]:
        """Prompts that are not computed, in order."""
        now_s = self._now()
        states = [*prefilling, *self._book.waiting.candidates()][:_MAX_PROMPTS_LOOKED_AT]
        return [
            PromptWait(
                state.num_missing_tokens,
                now_s - state.request.arrival_s,
                state.num_planned_tokens,
            )
            for state in states
        ]
