"""What the executor remembers of each request between steps."""

from dataclasses import dataclass, field

from torch import Tensor

from leadline.engine.request import SamplingParams
from leadline.engine.step import FOLLOWS, NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.grammar_path import Grammars
from leadline.engine.worker.sampling_table import SamplingTable
from leadline.engine.worker.token_rules import TokenRules, make_rules


@dataclass(slots=True)
class HeldRequest:
    """Tokens and pages of one request.

    Attributes:
        token_ids: every known token; sampled ones are appended after each step.
        num_computed_tokens: leading tokens whose latents are in the cache; None before the first
            row, which says where it begins.
        draft_ids: proposed and not verified yet.
        slot: of the table of sampling parameters.
        rules: what the request asks of its tokens beyond that table; None for nothing.
        is_over: the request has its last token, or has failed; its further rows are skipped.
        page_ids: the page table, in order.
        last_hidden: the main model's hidden state [D] of the last token that it has computed and
            that is known to be right; kept while there is a drafter.
    """

    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams
    slot: int
    rules: TokenRules | None = None
    num_computed_tokens: int | None = None
    draft_ids: list[int] = field(default_factory=list)
    is_over: bool = False
    page_ids: list[int] = field(default_factory=list)
    last_hidden: Tensor | None = None

    @property
    def num_tokens_left(self) -> int:
        """Output tokens that the request still wants."""
        return self.params.max_tokens - (len(self.token_ids) - self.num_prompt_tokens)

    def cut(self, token_ids: list[int]) -> list[int]:
        """New tokens up to the one that ends the request; if one does, it `is_over`."""
        for count, token_id in enumerate(token_ids, 1):
            if self.params.ends_text(token_id) or count == self.num_tokens_left:
                self.is_over = True
                return token_ids[:count]
        return token_ids


@dataclass(slots=True)
class LiveRow:
    """A row of the plan whose request has not ended, and what it amounts to.

    Attributes:
        index: of the row in the plan.
        start: position of its first token.
        draft_ids: what it verifies.
    """

    index: int
    row: ScheduledRow
    request: HeldRequest
    start: int
    draft_ids: list[int]

    @property
    def num_tokens(self) -> int:
        """Tokens that it computes, drafts included."""
        return self.row.num_tokens + len(self.draft_ids)

    @property
    def token_ids(self) -> list[int]:
        """These tokens."""
        known = self.request.token_ids[self.start : self.start + self.row.num_tokens]
        return known + self.draft_ids


class HeldRequests:
    """All requests that the executor holds, kept in step with the scheduler's plans."""

    def __init__(self, *, vocab_size: int, grammars: Grammars | None = None) -> None:
        """`grammars`: compiled ones; None if there are none to be had."""
        self.table = SamplingTable()
        self._vocab_size = vocab_size
        self._grammars = grammars
        self._held: dict[str, HeldRequest] = {}

    def __getitem__(self, request_id: str) -> HeldRequest:
        return self._held[request_id]

    def __len__(self) -> int:
        return len(self._held)

    def apply(self, plan: SchedulerOutput) -> None:
        """Drop what was released, take what is new, extend the page tables."""
        for request_id in plan.released_ids:
            held = self._held.pop(request_id, None)
            if held is not None:
                self.table.release(held.slot)
        for new in plan.new_requests:
            self._held[new.request_id] = self._hold(new)
        for row in plan.rows:
            self._held[row.request_id].page_ids.extend(row.new_page_ids)

    def live_rows(self, plan: SchedulerOutput) -> list[LiveRow]:
        """The rows that are to be computed."""
        rows = []
        for index, row in enumerate(plan.rows):
            held = self._held[row.request_id]
            if held.is_over:
                continue
            start = row.start
            if start == FOLLOWS:
                assert held.num_computed_tokens is not None, "the first row says where it begins"
                start = held.num_computed_tokens
                assert start + 1 == len(held.token_ids), "the step before did not sample"
            num_verify = min(row.num_verify, held.num_tokens_left - 1)
            draft_ids = held.draft_ids[:num_verify] if num_verify > 0 else []
            assert start + row.num_tokens <= len(held.token_ids), "a row of unknown tokens"
            rows.append(LiveRow(index, row, held, start, draft_ids))
        return rows

    def _hold(self, new: NewRequest) -> HeldRequest:
        return HeldRequest(
            token_ids=list(new.token_ids),
            num_prompt_tokens=new.num_prompt_tokens,
            params=new.params,
            slot=self.table.take(new.params),
            rules=make_rules(new, self._vocab_size, self._grammars),
        )
