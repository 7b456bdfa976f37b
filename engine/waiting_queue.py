"""Requests that wait for room: in which order they are admitted."""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterator

from leadline.engine.fair_share import FairShare
from leadline.engine.request_state import RequestState

_by_number = lambda state: state.number  # noqa: E731 - a key


class WaitingQueue:
    """Lower priority numbers first; then the tenant that has been served least; then by arrival.

    A preempted request comes back to its old place.

    Attributes:
        num_tokens: known tokens of all that wait.
    """

    def __init__(self, shares: FairShare) -> None:
        self.num_tokens = 0
        self._shares = shares
        self._levels: dict[int, dict[str, list[RequestState]]] = defaultdict(dict)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[RequestState]:
        for tenants in self._levels.values():
            for states in tenants.values():
                yield from states

    def oldest_s(self, now_s: float) -> float:
        """For how long the request that arrived first has waited by `now_s`; 0 if none waits."""
        return max(0.0, now_s - min((s.request.arrival_s for s in self), default=now_s))

    def push(self, state: RequestState) -> None:
        """Let a request wait, before those that arrived after it."""
        request = state.request
        insort(self._levels[request.priority].setdefault(request.tenant, []), state, key=_by_number)
        self._count += 1
        self.num_tokens += len(state.token_ids)

    def remove(self, state: RequestState) -> None:
        """Take a request out."""
        request = state.request
        tenants = self._levels[request.priority]
        tenants[request.tenant].remove(state)
        if not tenants[request.tenant]:
            del tenants[request.tenant]
        if not tenants:
            del self._levels[request.priority]
        self._count -= 1
        self.num_tokens -= len(state.token_ids)

    def candidates(self) -> Iterator[RequestState]:
        """All requests in order of admission; the one handed out last may be removed meanwhile.

        Who is next is decided anew after each, since an admission changes the shares.
        """
        for priority in sorted(self._levels):
            places = dict.fromkeys(self._levels[priority], 0)
            while places:
                tenant = min(places, key=lambda name: (self._shares.served(name), name))
                states = self._levels.get(priority, {}).get(tenant, [])
                if places[tenant] >= len(states):
                    del places[tenant]
                    continue
                state = states[places[tenant]]
                yield state
                still_waits = places[tenant] < len(states) and states[places[tenant]] is state
                places[tenant] += still_waits
