"""The step contract between scheduler and executor: plain data, no tensors.

The executor keeps each request's tokens, page table and sampling parameters, so that a step names
only what is new. A preempted request is released, and begins anew when it is scheduled again.
Plain slots classes: creating a frozen one costs three times as much.
"""

import msgspec

from leadline.engine.request import SamplingParams


class NewRequest(msgspec.Struct, kw_only=True):
    """A request that the executor does not hold yet (first time, or after a preemption).

    Attributes:
        token_ids: every known token: the prompt, and what was generated before a preemption.
        num_prompt_tokens: how many of `token_ids` are the prompt.
    """

    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams


class ScheduledRow(msgspec.Struct):
    """What one request computes in a step.

    Tokens at positions [start, start + num_tokens) are computed; the last `len(draft_ids)` of them
    are drafts, unknown to be right. A row whose tokens reach the end of what is known samples.

    Attributes:
        new_page_ids: pages appended to the request's page table before this step (on the first
            row of a request: its whole table, cached pages included).
        samples: whether logits of the last `1 + len(draft_ids)` tokens are sampled.
        num_drafts: most drafts to propose for the step after this one.
    """

    request_id: str
    start: int
    num_tokens: int
    new_page_ids: list[int]
    draft_ids: list[int]
    samples: bool
    num_drafts: int = 0


class SchedulerOutput(msgspec.Struct):
    """The plan of a step. An empty plan is legal: an idle data-parallel rank still steps.

    Attributes:
        released_ids: requests whose executor state must be dropped before this step (finished,
            aborted or preempted since the last one).
        num_tokens: sum of the rows' `num_tokens`.
    """

    step_id: int
    new_requests: list[NewRequest]
    rows: list[ScheduledRow]
    released_ids: list[str]
    num_tokens: int


class RowOutput(msgspec.Struct):
    """What one row of the plan produced.

    Attributes:
        token_ids: sampled tokens: empty if the row does not sample, else the accepted drafts
            followed by one token of the target's own.
        draft_ids: drafts for the next step.
        error: a sentence if this row alone failed (for example NaN logits); the request ends.
    """

    token_ids: list[int]
    draft_ids: list[int] = msgspec.field(default_factory=list)
    error: str | None = None


class ModelOutput(msgspec.Struct):
    """The result of a step, row by row in the plan's order.

    Attributes:
        elapsed_s: seconds the executor worked.
        draft_s: how many of them went into drafts.
    """

    step_id: int
    rows: list[RowOutput]
    elapsed_s: float
    draft_s: float = 0.0
