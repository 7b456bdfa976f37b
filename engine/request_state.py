"""The scheduler's record of a request that is alive."""

import enum
from concurrent.futures import Future
from dataclasses import dataclass, field

from leadline.engine.prefix_cache import PageHash, chain_hash, root_hash
from leadline.engine.request import EngineRequest, RequestTiming, SpeculationCounts, TokenLogprobs
from leadline.engine.step import ScheduledRow


class RequestStatus(enum.Enum):
    """Where a request stands; FINISHED means that its final output has been made."""

    WAITING = enum.auto()
    LOADING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True, eq=False)
class RequestState:
    """One request between its arrival and its last page being freed.

    What steps in flight will have done is not in `token_ids` and `num_computed_tokens`; it is
    derived from `rows_in_flight` where a step is planned ahead.

    Attributes:
        number: grows with arrival.
        prepared: what has to be done before the first step, for example a grammar's compilation.
        token_ids: every known token, prompt first.
        num_computed_tokens: leading tokens whose latents are in the cache.
        num_held_drafts: drafts of this request that the executor holds, once no step is in flight.
        rows_in_flight: planned rows whose results are not known, the oldest first.
        is_loading: a step in flight loads pages from the host tier, or checks cached ones.
        page_ids: the page table; page i holds the tokens [i * page_size, (i + 1) * page_size).
        page_hashes: chained hashes of the leading full pages, as far as they were needed.
        num_committed_pages: leading pages that the prefix cache has been offered.
        num_cached_tokens: prompt tokens found in the prefix cache at first admission; None before.
        is_held: the executor holds the request's tokens and page table.
        num_host_tokens: prompt tokens among them that came from the host tier.
        prompt_logprobs: of the prompt tokens computed so far, until they are handed out.
        arrived_s: when it came, by the scheduler's clock, as the two that follow.
        admitted_s: when it first got pages; None before.
        first_token_s: None before.
        is_suspect: it is computed alone, until it has a new token.
    """

    request: EngineRequest
    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    max_tokens: int
    number: int = 0
    prepared: "Future[None] | None" = None
    num_computed_tokens: int = 0
    num_held_drafts: int = 0
    rows_in_flight: list[ScheduledRow] = field(default_factory=list)
    is_loading: bool = False
    page_ids: list[int] = field(default_factory=list)
    page_hashes: list[PageHash] = field(default_factory=list)
    num_committed_pages: int = 0
    num_cached_tokens: int | None = None
    num_host_tokens: int = 0
    is_held: bool = False
    status: RequestStatus = RequestStatus.WAITING
    speculation: SpeculationCounts = field(default_factory=SpeculationCounts)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    arrived_s: float = 0.0
    admitted_s: float | None = None
    first_token_s: float | None = None
    num_preemptions: int = 0
    is_suspect: bool = False

    @classmethod
    def of(
        cls,
        request: EngineRequest,
        number: int = 0,
        prepared: "Future[None] | None" = None,
        *,
        now_s: float = 0.0,
    ) -> "RequestState":
        """The state of a request on arrival: as after a preemption, if it is resumed."""
        state = cls(
            request=request,
            request_id=request.request_id,
            token_ids=list(request.prompt_ids),
            num_prompt_tokens=len(request.prompt_ids),
            max_tokens=request.params.max_tokens,
            number=number,
            prepared=prepared,
            arrived_s=now_s,
        )
        if (resumed := request.resumption) is not None:
            state.is_suspect = resumed.is_suspect
            if resumed.token_ids:
                state.token_ids += resumed.token_ids
                state.num_cached_tokens = resumed.num_cached_tokens
                state.speculation = resumed.speculation
        return state

    @property
    def order(self) -> tuple[int, int]:
        """What comes first where requests compete: priority, then arrival."""
        return self.request.priority, self.number

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_in_flight(self) -> bool:
        """Whether a step under way reads or writes the request's pages."""
        return self.is_loading or bool(self.rows_in_flight)

    @property
    def samples_in_flight(self) -> bool:
        """Whether the step in flight samples, so that the next row can only follow it."""
        return bool(self.rows_in_flight) and self.rows_in_flight[-1].samples

    @property
    def num_planned_tokens(self) -> int:
        """Leading known tokens that are computed, or will be by steps in flight."""
        return self.num_computed_tokens + sum(row.num_tokens for row in self.rows_in_flight)

    @property
    def num_missing_tokens(self) -> int:
        """Known tokens that no step has computed or is computing."""
        return len(self.token_ids) - self.num_planned_tokens

    @property
    def num_drafts_in_flight(self) -> int:
        """Most drafts that the step in flight verifies."""
        return min(self.rows_in_flight[-1].num_verify, self.num_held_drafts)

    def timing(self, now_s: float) -> RequestTiming:
        """How long it was where, as of now."""
        admitted_s = now_s if self.admitted_s is None else self.admitted_s
        timing = RequestTiming(
            queue_s=max(0.0, admitted_s - self.arrived_s),
            num_preemptions=self.num_preemptions,
            num_host_tokens=self.num_host_tokens,
        )
        if self.first_token_s is not None:
            timing.prefill_s = max(0.0, self.first_token_s - admitted_s)
            timing.decode_s = max(0.0, now_s - self.first_token_s)
        return timing

    @property
    def is_surely_over(self) -> bool:
        """Whether the step in flight brings the request's last token in any case."""
        return self.samples_in_flight and self.num_output_tokens + 1 >= self.max_tokens

    def extend_hashes(self, num_pages: int, page_size: int) -> None:
        """Hash leading full pages, until there are `num_pages` hashes."""
        hashes = self.page_hashes
        parent = hashes[-1] if hashes else root_hash(self.request.cache_salt)
        for i in range(len(hashes), num_pages):
            start = i * page_size
            parent = chain_hash(parent, self.token_ids[start : start + page_size])
            hashes.append(parent)

    def useful_drafts(self, num_drafts: int, num_sampled: int) -> int:
        """How many of `num_drafts` drafts can be of use once `num_sampled` more tokens are known.

        Each step samples a token of its own after the drafts that it accepts, so the last token of
        a request is never drafted for.
        """
        cap = self.request.params.speculative_tokens
        if cap is not None:
            num_drafts = min(num_drafts, cap)
        return max(0, min(num_drafts, self.max_tokens - self.num_output_tokens - num_sampled - 1))
