"""Which lane a request goes to."""

from collections.abc import Sequence
from typing import Protocol


class RequestRouter(Protocol):
    """Chooses, and is told of what becomes of the requests."""

    def route(
        self,
        request_id: str,
        token_ids: Sequence[int],
        *,
        cache_salt: str = "",
        session_id: str = "",
    ) -> int:
        """The lane of a request, which is counted as sent there."""
        ...

    def take_tokens(self, request_id: str, token_ids: Sequence[int]) -> None:
        """A request has output tokens."""
        ...

    def end(self, request_id: str) -> None:
        """A request is over."""
        ...
