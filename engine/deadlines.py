"""When requests have to be over."""

import heapq

from leadline.engine.request import EngineRequest


class Deadlines:
    """The moments by which requests must have ended, the next one first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []
        self._alive: set[str] = set()

    def add(self, request_id: str, deadline_s: float | None) -> None:
        """Remember a request's deadline (`EngineRequest.deadline_s`), if it has one."""
        if deadline_s is not None:
            heapq.heappush(self._heap, (deadline_s, request_id))
            self._alive.add(request_id)

    def remove(self, request_id: str) -> None:
        """A request has ended."""
        self._alive.discard(request_id)

    def idle_s(self, now_s: float) -> float | None:
        """Seconds before which none passes; None if there is none."""
        return max(0.0, self._heap[0][0] - now_s) if self._heap else None

    def pop_due(self, now_s: float) -> list[tuple[str, float]]:
        """Requests whose deadline has passed, each with its deadline; they are forgotten."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            deadline_s, request_id = heapq.heappop(self._heap)
            if request_id in self._alive:
                self._alive.remove(request_id)
                due.append((request_id, deadline_s))
        return due


def has_passed(request: EngineRequest) -> str:
    """What is told of a request that has reached its deadline."""
    assert request.deadline_s is not None, "without a deadline none can pass"
    limit_s = request.deadline_s - request.arrival_s
    return f"the request's deadline, {limit_s:.3g} s after its arrival, has passed"
