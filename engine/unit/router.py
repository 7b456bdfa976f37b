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


class FewestRequests:
    """The lane with the fewest requests; of equals each in turn."""

    def __init__(self, num_lanes: int) -> None:
        self._num_requests = [0] * num_lanes
        self._lanes: dict[str, int] = {}
        self._last = num_lanes - 1

    def route(
        self,
        request_id: str,
        token_ids: Sequence[int],
        *,
        cache_salt: str = "",
        session_id: str = "",
    ) -> int:
        """See `RequestRouter.route`."""
        num_lanes = len(self._num_requests)
        turns = [(self._last + 1 + i) % num_lanes for i in range(num_lanes)]
        lane = min(turns, key=self._num_requests.__getitem__)
        self._last = lane
        self._num_requests[lane] += 1
        self._lanes[request_id] = lane
        return lane

    def take_tokens(self, request_id: str, token_ids: Sequence[int]) -> None:
        """See `RequestRouter.take_tokens`: they change nothing."""

    def end(self, request_id: str) -> None:
        """See `RequestRouter.end`."""
        self._num_requests[self._lanes.pop(request_id)] -= 1
