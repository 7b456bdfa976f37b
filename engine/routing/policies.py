"""How one of several ranks is chosen for a request."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from leadline.engine.routing.rank_load import Candidate


class RoutingPolicy(Protocol):
    """Chooses among living ranks."""

    def choose(self, num_tokens: int, candidates: Sequence[Candidate]) -> int:
        """The rank of one of the candidates.

        Args:
            num_tokens: known tokens of the request.
            candidates: at least one, in rank order.
        """
        ...


class RoundRobin:
    """Each in turn, whatever they do."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, num_tokens: int, candidates: Sequence[Candidate]) -> int:
        """See `RoutingPolicy.choose`."""
        chosen = min(candidates, key=lambda c: (c.rank < self._next, c.rank))
        self._next = chosen.rank + 1
        return chosen.rank


class LeastLoaded:
    """The one with the fewest requests; of equals each in turn."""

    def __init__(self) -> None:
        self._turn = RoundRobin()

    def choose(self, num_tokens: int, candidates: Sequence[Candidate]) -> int:
        """See `RoutingPolicy.choose`."""
        fewest = min(candidate.load.num_requests for candidate in candidates)
        equal = [c for c in candidates if c.load.num_requests == fewest]
        return self._turn.choose(num_tokens, equal)


class RoutingWeights(msgspec.Struct, frozen=True, kw_only=True):
    """What things are worth, in prompt tokens to be computed.

    Attributes:
        request_tokens: a request that the rank has; ranks of a unit wait for the one with most.
        session_tokens: the session's earlier requests were there.
        overflow: each token beyond what the latent pages hold: requests would wait or be preempted.
    """

    request_tokens: int = 128
    session_tokens: int = 1024
    overflow: int = 8


class PrefixAware:
    """The one where the prompt costs least: what is to be computed before and for it.

    A rank that has the prompt's beginning in its prefix cache saves that, and is passed over only
    when its queue costs more than it saves. Of equals each in turn.
    """

    def __init__(self, weights: RoutingWeights | None = None) -> None:
        self._weights = weights or RoutingWeights()
        self._turn = RoundRobin()

    def choose(self, num_tokens: int, candidates: Sequence[Candidate]) -> int:
        """See `RoutingPolicy.choose`."""
        costs = [self.cost(num_tokens, candidate) for candidate in candidates]
        least = min(costs)
        equal = [c for c, cost in zip(candidates, costs, strict=True) if cost == least]
        return self._turn.choose(num_tokens, equal)

    def cost(self, num_tokens: int, candidate: Candidate) -> int:
        """In prompt tokens."""
        weights, load = self._weights, candidate.load
        num_new = num_tokens - candidate.num_hit_tokens
        excess = max(0, load.num_latent_tokens + num_new - load.max_tokens)
        cost = load.num_prompt_tokens + num_new + weights.overflow * excess
        cost += weights.request_tokens * load.num_requests
        return cost - (weights.session_tokens if candidate.has_session else 0)


def make_policy(name: str) -> RoutingPolicy:
    """`prefix`, `least-loaded` or `round-robin`."""
    match name:
        case "prefix":
            return PrefixAware()
        case "least-loaded":
            return LeastLoaded()
        case "round-robin":
            return RoundRobin()
    raise AssertionError(f"no such policy: {name}")


POLICIES = ("prefix", "least-loaded", "round-robin")
