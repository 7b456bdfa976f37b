"""What the executor remembers of each request between steps."""

from dataclasses import dataclass, field

from torch import Tensor

from leadline.engine.request import SamplingParams
from leadline.engine.step import NewRequest, SchedulerOutput


@dataclass(slots=True)
class HeldRequest:
    """Tokens and pages of one request.

    Attributes:
        token_ids: every known token; sampled ones are appended after each step.
        page_ids: the page table, in order.
        last_hidden: the main model's hidden state [D] of the last token that it has computed and
            that is known to be right; kept while there is a drafter.
    """

    token_ids: list[int]
    params: SamplingParams
    page_ids: list[int] = field(default_factory=list)
    last_hidden: Tensor | None = None


class HeldRequests:
    """All requests that the executor holds, kept in step with the scheduler's plans."""

    def __init__(self) -> None:
        self._held: dict[str, HeldRequest] = {}

    def __getitem__(self, request_id: str) -> HeldRequest:
        return self._held[request_id]

    def __len__(self) -> int:
        return len(self._held)

    def apply(self, plan: SchedulerOutput) -> None:
        """Drop what was released, take what is new, extend the page tables."""
        for request_id in plan.released_ids:
            self._held.pop(request_id, None)
        for new in plan.new_requests:
            self._held[new.request_id] = _hold(new)
        for row in plan.rows:
            self._held[row.request_id].page_ids.extend(row.new_page_ids)


def _hold(new: NewRequest) -> HeldRequest:
    return HeldRequest(list(new.token_ids), new.params)
