"""The scheduler's record of a request that is alive."""

import enum
from dataclasses import dataclass, field

from leadline.engine.prefix_cache import PageHash
from leadline.engine.request import EngineRequest


class RequestStatus(enum.Enum):
    """Where a request stands; FINISHED means that its final output has been made."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True, eq=False)
class RequestState:
    """One request between its arrival and its last page being freed.

    Attributes:
        token_ids: every known token, prompt first.
        num_computed_tokens: leading tokens whose latents are in the cache.
        draft_ids: guesses at the tokens that follow the known ones.
        page_ids: the page table; page i holds the tokens [i * page_size, (i + 1) * page_size).
        page_hashes: chained hashes of the leading full pages, as far as they were needed.
        num_committed_pages: leading pages that the prefix cache has been offered.
        num_cached_tokens: prompt tokens found in the prefix cache at first admission; None before.
        num_steps_in_flight: steps under way that read or write the request's pages.
        is_held: the executor holds the request's tokens and page table.
    """

    request: EngineRequest
    request_id: str
    token_ids: list[int]
    num_prompt_tokens: int
    max_tokens: int
    num_computed_tokens: int = 0
    draft_ids: list[int] = field(default_factory=list)
    page_ids: list[int] = field(default_factory=list)
    page_hashes: list[PageHash] = field(default_factory=list)
    num_committed_pages: int = 0
    num_cached_tokens: int | None = None
    num_steps_in_flight: int = 0
    is_held: bool = False
    status: RequestStatus = RequestStatus.WAITING

    @classmethod
    def of(cls, request: EngineRequest) -> "RequestState":
        """The state of a request on arrival."""
        return cls(
            request=request,
            request_id=request.request_id,
            token_ids=list(request.prompt_ids),
            num_prompt_tokens=len(request.prompt_ids),
            max_tokens=request.params.max_tokens,
        )

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    def useful_drafts(self, num_drafts: int) -> int:
        """How many of `num_drafts` drafts can be of use after a step that samples one token.

        Each step samples a token of its own after the drafts that it accepts, so the last two
        tokens of a request are never drafted for.
        """
        cap = self.request.params.speculative_tokens
        if cap is not None:
            num_drafts = min(num_drafts, cap)
        return max(0, min(num_drafts, self.max_tokens - self.num_output_tokens - 2))
