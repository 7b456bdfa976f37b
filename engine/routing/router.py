"""Sends each request to one of the data-parallel ranks, and keeps count of what they have."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from leadline.engine.errors import EngineDeadError
from leadline.engine.prefix_cache import PageHash, chain_hash, root_hash
from leadline.engine.routing.page_index import PageIndex
from leadline.engine.routing.policies import RoutingPolicy
from leadline.engine.routing.rank_load import Candidate, RankLoad
from leadline.engine.routing.sessions import Sessions


@dataclass(slots=True)
class RoutedRequest:
    """A request that is not over.

    Attributes:
        num_prompt_tokens: that have to be computed before its first token; 0 after it.
        num_latent_tokens: that its pages hold.
        token_ids: known tokens, as far as they are told.
        page_hashes: of the full pages among them.
    """

    rank: int
    num_prompt_tokens: int
    num_latent_tokens: int
    token_ids: list[int]
    page_hashes: list[PageHash] = field(default_factory=list)


@dataclass(slots=True)
class RoutingCounts:
    """Since start.

    Attributes:
        num_requests: sent to each rank.
        num_prompt_tokens: of all requests.
        num_hit_tokens: of them, believed to be in the prefix cache of the chosen rank.
        num_session_requests: of a session that was known.
        num_session_kept: of them, sent to where the session was.
    """

    num_requests: list[int]
    num_prompt_tokens: int = 0
    num_hit_tokens: int = 0
    num_session_requests: int = 0
    num_session_kept: int = 0


class Router:
    """The books of a policy.

    Whoever sends requests calls `route`, and tells it of their tokens and of their end. All ranks
    are alike: the same model, pool and page size.

    Attributes:
        loads: of each rank.
        counts: since start.
        index: what the ranks' prefix caches are believed to hold.
    """

    def __init__(
        self,
        policy: RoutingPolicy,
        num_ranks: int,
        *,
        num_pages: int,
        page_size: int,
        prefix_caching: bool = True,
    ) -> None:
        """No request has come.

        Args:
            policy: chooses.
            num_ranks: data parallel ones.
            num_pages: of each rank.
            page_size: tokens a page.
            prefix_caching: whether ranks keep the pages of requests that are over.
        """
        self._policy = policy
        self._page_size = page_size
        self._prefix_caching = prefix_caching
        self.loads = [RankLoad(num_pages * page_size) for _ in range(num_ranks)]
        self.counts = RoutingCounts([0] * num_ranks)
        self.index = PageIndex(num_ranks, num_pages)
        self._sessions = Sessions()
        self._requests: dict[str, RoutedRequest] = {}

    def route(
        self,
        request_id: str,
        token_ids: Sequence[int],
        *,
        cache_salt: str = "",
        session_id: str = "",
    ) -> int:
        """Choose the rank of a request and count it as sent there.

        Args:
            request_id: unique among those that are not over.
            token_ids: known tokens: the prompt, and what a dead rank has generated.
            cache_salt: see `EngineRequest.cache_salt`.
            session_id: of the client's choice; empty for none.

        Raises:
            EngineDeadError: no rank is alive.
        """
        assert request_id not in self._requests, f"{request_id} has been sent"
        page_hashes = self._hashes([root_hash(cache_salt)], token_ids)
        session_rank = self._sessions.rank_of(session_id)
        candidates = [
            Candidate(rank, load, self._num_hit_tokens(rank, page_hashes), rank == session_rank)
            for rank, load in enumerate(self.loads)
            if load.is_alive
        ]
        if not candidates:
            raise EngineDeadError("no rank of the unit is alive")
        rank = self._policy.choose(len(token_ids), candidates)
        num_hits = next(c.num_hit_tokens for c in candidates if c.rank == rank)
        num_hits = min(num_hits, len(token_ids) - 1)
        request = RoutedRequest(rank, len(token_ids) - num_hits, len(token_ids), list(token_ids))
        request.page_hashes = [root_hash(cache_salt), *page_hashes]
        self._requests[request_id] = request
        self._count(request, num_hits, session_rank)
        self._sessions.put(session_id, rank)
        self.index.add(rank, page_hashes)
        return rank

    def take_tokens(self, request_id: str, token_ids: Sequence[int]) -> None:
        """A request has output tokens."""
        request = self._requests[request_id]
        load = self.loads[request.rank]
        load.num_prompt_tokens -= request.num_prompt_tokens
        load.num_latent_tokens += len(token_ids)
        request.num_prompt_tokens = 0
        request.num_latent_tokens += len(token_ids)
        request.token_ids += token_ids

    def end(self, request_id: str) -> None:
        """A request is over; its pages stay cached."""
        request = self._requests.pop(request_id)
        load = self.loads[request.rank]
        load.num_requests -= 1
        load.num_prompt_tokens -= request.num_prompt_tokens
        load.num_latent_tokens -= request.num_latent_tokens
        # The last token's latent is never computed.
        hashes = self._hashes(request.page_hashes, request.token_ids[:-1])
        self.index.add(request.rank, hashes)

    def mask(self, rank: int) -> list[str]:
        """A rank is dead; returns its requests, which are to be routed anew."""
        lost = [name for name, request in self._requests.items() if request.rank == rank]
        for request_id in lost:
            self.end(request_id)
        self.loads[rank].is_alive = False
        self.index.clear(rank)
        self._sessions.forget_rank(rank)
        return lost

    def unmask(self, rank: int) -> None:
        """A rank is back, with nothing in its cache."""
        self.loads[rank].is_alive = True

    def _num_hit_tokens(self, rank: int, page_hashes: Sequence[PageHash]) -> int:
        return self._page_size * self.index.num_hits(rank, page_hashes)

    def _hashes(self, known: Sequence[PageHash], token_ids: Sequence[int]) -> list[PageHash]:
        """Of all full pages; `known` are the root and the first of them."""
        hashes, size = list(known), self._page_size
        if not self._prefix_caching:
            return []
        for start in range((len(hashes) - 1) * size, len(token_ids) - size + 1, size):
            hashes.append(chain_hash(hashes[-1], token_ids[start : start + size]))
        return hashes[1:]

    def _count(self, request: RoutedRequest, num_hits: int, session_rank: int | None) -> None:
        load = self.loads[request.rank]
        load.num_requests += 1
        load.num_prompt_tokens += request.num_prompt_tokens
        load.num_latent_tokens += request.num_latent_tokens
        self.counts.num_requests[request.rank] += 1
        self.counts.num_prompt_tokens += len(request.token_ids)
        self.counts.num_hit_tokens += num_hits
        if session_rank is not None:
            self.counts.num_session_requests += 1
            self.counts.num_session_kept += session_rank == request.rank
