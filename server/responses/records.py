"""What the store of responses takes and gives."""

from dataclasses import dataclass
from typing import Literal

LOST_S = 10.0
"""After so long without a sign of life of the process that makes it, a response is lost."""
LogState = Literal["open", "closed", "dropped"]
RUNNING = ("queued", "in_progress")
"""States of a response that has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResponse:
    """A response as of its last change.

    Attributes:
        owner: stands for the key of the caller that made it (`Caller.tenant`).
        status: the response's own.
        body: the response, as JSON.
        items: what it answers, with all that came before, as a JSON list of input items.
        log: whether its events are kept; None if they were not to be.
        is_lost: it has not ended, and the process that was to make it is gone.
    """

    id: str
    owner: str
    status: str
    body: bytes
    items: bytes
    log: LogState | None = None
    is_lost: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether it stays as it is."""
        return self.status not in RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Some of the events of a response, in their order.

    Attributes:
        frames: each with its number.
        log: "open" if there may be more; "dropped" if they are not kept any more.
        is_lost: as of the response.
    """

    frames: list[tuple[int, bytes]]
    log: LogState
    is_lost: bool
