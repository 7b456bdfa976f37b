"""The step contract between scheduler and executor: plain data, no tensors.

The executor keeps each request's tokens, drafts, page table and sampling parameters, so that a step
names only what is new, and a step may be planned while the one before it runs: a row then goes on
wherever that one leaves its request. A preempted request is released, and begins anew when it is
scheduled again. Plain slots classes: creating a frozen one costs three times as much.
"""

import enum

import msgspec

from leadline.engine.expert_balance.balance_counts import BalanceCounts
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.request import SamplingParams, TokenLogprobs

FOLLOWS = -1
"""The start of a row that goes on where the step before leaves its request."""


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

    Known tokens at positions [start, start + num_tokens) are computed, and after them at most
    `num_verify` of the drafts that the executor holds for the request. A row whose tokens reach the
    end of what is known samples. A row of a request that has ended in the step before (by its own
    parameters, or failed) is skipped by the executor.

    Attributes:
        start: position of the first token; `FOLLOWS` for the last known token of a request whose
            step before is still under way when this one is planned.
        num_tokens: known tokens, at least 1; 1 if the row `FOLLOWS`.
        new_page_ids: pages appended to the request's page table before this step (on the first
            row of a request: its whole table, cached pages included).
        num_verify: most drafts to verify; 0 if the row does not sample.
        samples: whether the logits of the last known token and of the drafts are sampled.
        num_drafts: most drafts to propose for the step after this one.
    """

    request_id: str
    start: int
    num_tokens: int
    new_page_ids: list[int]
    num_verify: int
    samples: bool
    num_drafts: int = 0


class MoveKind(enum.IntEnum):
    """Which way a page's content is copied."""

    STORE = 0
    LOAD = 1


class PageMove(msgspec.Struct, array_like=True):
    """A copy between a page of the pool and a place in the host tier.

    STORE copies the page (all layers, and the kept hidden state) to the host with a checksum; LOAD
    copies it back and verifies it. Where pages of the pool have checksums, STORE takes that one
    along, so that LOAD notices damage from before it.
    """

    kind: MoveKind
    page_id: int
    host_id: int


class SchedulerOutput(msgspec.Struct):
    """The plan of a step. An empty plan is legal: an idle data-parallel rank still steps.

    Attributes:
        released_ids: requests whose executor state must be dropped before this step (finished,
            aborted or preempted since the last one).
        num_tokens: most tokens that the step computes: the rows' `num_tokens + num_verify`.
        page_moves: copies to carry out before the rows, in this order.
        checked_page_ids: cached pages to compare with their checksums before the rows.
    """

    step_id: int
    new_requests: list[NewRequest]
    rows: list[ScheduledRow]
    released_ids: list[str]
    num_tokens: int
    page_moves: list[PageMove] = msgspec.field(default_factory=list)
    checked_page_ids: list[int] = msgspec.field(default_factory=list)


class RowOutput(msgspec.Struct):
    """What one row of the plan produced.

    Attributes:
        token_ids: sampled tokens: empty if the row does not sample or was skipped, else the
            accepted drafts followed by one token of the target's own.
        num_verified: drafts that were verified.
        num_accepted: how many of them were right; as many tokens as that, or one more.
        num_drafts: drafts that were proposed, and are held by the executor.
        error: a sentence if this row alone failed (for example NaN logits); the request ends.
        is_skipped: the request had ended in the step before.
        is_corrupt: `error` is about NaN logits.
        logprobs: one for each of `token_ids`, if they were asked for.
        prompt_logprobs: of the prompt tokens at positions start + 1 .. start + num_tokens, those
            that exist, if they were asked for.
    """

    token_ids: list[int]
    num_verified: int = 0
    num_accepted: int = 0
    num_drafts: int = 0
    error: str | None = None
    is_skipped: bool = False
    is_corrupt: bool = False
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None


class ModelOutput(msgspec.Struct):
    """The result of a step, row by row in the plan's order.

    Attributes:
        elapsed_s: seconds the executor worked.
        draft_s: how many of them went into drafts.
        num_draft_passes: rows of the drafter's passes, those included whose draft was dropped for
            want of confidence.
        num_tokens: tokens that were computed, verified drafts included.
        num_context_tokens: tokens that the rows' new tokens attended to, counted once a row.
        failed_loads: host places whose content did not match its checksum; their pages are garbage.
        damaged_page_ids: checked pages whose content did not match their checksum.
        dispatch: what the way of the tokens to their experts has cost; None if all are here.
        balance: what has come of moving experts; None if they stay where they are.
    """

    step_id: int
    rows: list[RowOutput]
    elapsed_s: float
    draft_s: float = 0.0
    num_draft_passes: int = 0
    num_tokens: int = 0
    num_context_tokens: int = 0
    failed_loads: list[int] = msgspec.field(default_factory=list)
    damaged_page_ids: list[int] = msgspec.field(default_factory=list)
    dispatch: DispatchCounts | None = None
    balance: BalanceCounts | None = None
