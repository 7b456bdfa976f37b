"""A plan while the scheduler makes it."""

from dataclasses import dataclass, field

from leadline.engine.request_state import RequestState
from leadline.engine.step import NewRequest, ScheduledRow


@dataclass(slots=True)
class StepPlan:
    """Rows of the next step; `states[i]` is the request of `rows[i]`.

    Attributes:
        num_tokens_left: what is left of the step's token budget.
        num_drafts: most drafts that a request proposes after the step.
    """

    num_tokens_left: int
    num_drafts: int = 0
    rows: list[ScheduledRow] = field(default_factory=list)
    states: list[RequestState] = field(default_factory=list)
    new_requests: list[NewRequest] = field(default_factory=list)

    def add_row(
        self,
        state: RequestState,
        num_tokens: int,
        new_page_ids: list[int],
        draft_ids: list[int],
    ) -> None:
        """Compute the next `num_tokens` tokens of a request, `draft_ids` being the last of them."""
        start = state.num_computed_tokens
        samples = start + num_tokens >= len(state.token_ids)
        self.num_tokens_left -= num_tokens
        self.states.append(state)
        self.rows.append(
            ScheduledRow(
                request_id=state.request_id,
                start=start,
                num_tokens=num_tokens,
                new_page_ids=new_page_ids,
                draft_ids=draft_ids,
                samples=samples,
                num_drafts=state.useful_drafts(self.num_drafts) if samples else 0,
            )
        )

    def add_new(self, state: RequestState) -> None:
        """Hand a request to the executor and compute its first tokens."""
        self.new_requests.append(
            NewRequest(
                request_id=state.request_id,
                token_ids=list(state.token_ids),
                num_prompt_tokens=state.num_prompt_tokens,
                params=state.request.params,
            )
        )
        num_missing = len(state.token_ids) - state.num_computed_tokens
        self.add_row(state, min(num_missing, self.num_tokens_left), list(state.page_ids), [])
