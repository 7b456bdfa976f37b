"""A plan while the scheduler makes it."""

from dataclasses import dataclass, field

from msgspec.structs import replace

from leadline.engine.request_state import RequestState
from leadline.engine.step import FOLLOWS, NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.step_cost import StepSize


@dataclass(slots=True)
class StepPlan:
    """Rows of the next step; `states[i]` is the request of `rows[i]`.

    Attributes:
        num_tokens_left: what is left of the step's token budget.
        num_prefill_tokens_left: how much of that prompts may take.
        loading: requests whose pages come from the host tier, or are checked, in this step.
    """

    num_tokens_left: int
    num_prefill_tokens_left: int
    rows: list[ScheduledRow] = field(default_factory=list)
    states: list[RequestState] = field(default_factory=list)
    new_requests: list[NewRequest] = field(default_factory=list)
    loading: list[RequestState] = field(default_factory=list)

    @property
    def room_for_prompts(self) -> int:
        """Prompt tokens that the step can still take."""
        return min(self.num_tokens_left, self.num_prefill_tokens_left)

    def size(self) -> StepSize:
        """What the rows so far have to do, if every draft is made and verified."""
        num_tokens = num_pairs = num_drafts = 0
        for row, state in zip(self.rows, self.states, strict=True):
            num_computed = row.num_tokens + row.num_verify
            num_tokens += num_computed
            start = len(state.token_ids) if row.start == FOLLOWS else row.start
            num_pairs += num_computed * (start + num_computed // 2)
            num_drafts += row.num_drafts
        return StepSize(num_tokens, num_pairs, num_drafts)

    def add_decode(
        self, state: RequestState, new_page_ids: list[int], num_verify: int, num_drafts: int
    ) -> None:
        """Compute the last known token of a request, and verify drafts after it."""
        start = FOLLOWS if state.samples_in_flight else state.num_planned_tokens
        row = ScheduledRow(
            request_id=state.request_id,
            start=start,
            num_tokens=1,
            new_page_ids=new_page_ids,
            num_verify=num_verify,
            samples=True,
            num_drafts=num_drafts,
        )
        self._add(state, row)

    def add_prefill(
        self, state: RequestState, num_tokens: int, new_page_ids: list[int], num_drafts: int
    ) -> None:
        """Compute the next `num_tokens` known tokens of a request."""
        samples = num_tokens == state.num_missing_tokens
        row = ScheduledRow(
            request_id=state.request_id,
            start=state.num_planned_tokens,
            num_tokens=num_tokens,
            new_page_ids=new_page_ids,
            num_verify=0,
            samples=samples,
            num_drafts=num_drafts if samples else 0,
        )
        self.num_prefill_tokens_left -= num_tokens
        self._add(state, row)

    def hand_over(self, state: RequestState) -> None:
        """Let the executor hold a request; its first row has its whole page table."""
        params = state.request.params
        if state.num_output_tokens > 0 and params.num_prompt_logprobs is not None:
            params = replace(params, num_prompt_logprobs=None)  # handed out already
        state.is_held = True
        self.new_requests.append(
            NewRequest(
                request_id=state.request_id,
                token_ids=list(state.token_ids),
                num_prompt_tokens=state.num_prompt_tokens,
                params=params,
            )
        )

    def _add(self, state: RequestState, row: ScheduledRow) -> None:
        self.num_tokens_left -= row.num_tokens + row.num_verify
        self.states.append(state)
        self.rows.append(row)
        state.rows_in_flight.append(row)


@dataclass(slots=True)
class PlannedStep:
    """A plan that was handed out, and whose results are to be taken in.

    Attributes:
        states: the request of each row.
        loading: requests whose pages come from the host tier, or are checked.
        size: what the rows have to do.
    """

    plan: SchedulerOutput
    states: list[RequestState]
    loading: list[RequestState]
    size: StepSize
