"""Page tables of requests, on top of the page pool and the prefix cache."""

from leadline.engine.page_pool import PagePool
from leadline.engine.prefix_cache import PrefixCache, chain_hash, root_hash
from leadline.engine.request_state import RequestState


class KVCacheManager:
    """Gives requests their pages and shares full pages between requests.

    Attributes:
        num_queried_tokens: tokens looked up in the prefix cache since start.
        num_hit_tokens: tokens found there since start.
    """

    def __init__(self, num_pages: int, page_size: int, *, prefix_caching: bool) -> None:
        self.page_size = page_size
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self._prefix_cache = PrefixCache()
        self._prefix_caching = prefix_caching
        self._pool = PagePool(num_pages, on_reclaim=self._prefix_cache.evict)

    @property
    def num_pages(self) -> int:
        """Pages in the pool."""
        return self._pool.num_pages

    @property
    def num_referenced_pages(self) -> int:
        """Pages that requests hold."""
        return self._pool.num_referenced

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold `num_tokens` tokens."""
        return -(-num_tokens // self.page_size)

    def match(self, state: RequestState) -> None:
        """Begin the page table with the cached pages of the request's known tokens.

        At least one known token stays to be computed, since its logits are needed.
        """
        assert not state.page_ids, f"{state.request_id} has pages already"
        if not self._prefix_caching:
            return
        num_full_pages = (len(state.token_ids) - 1) // self.page_size
        self._extend_hashes(state, num_full_pages)
        page_ids = self._prefix_cache.match(state.page_hashes[:num_full_pages])
        for page_id in page_ids:
            self._pool.acquire(page_id)
        state.page_ids = page_ids
        state.num_committed_pages = len(page_ids)
        state.num_computed_tokens = len(page_ids) * self.page_size

    def record_lookup(self, state: RequestState) -> None:
        """Count the match of a request that was admitted with it."""
        if self._prefix_caching:
            self.num_queried_tokens += len(state.token_ids)
            self.num_hit_tokens += state.num_computed_tokens

    def allocate(self, state: RequestState, num_tokens: int) -> list[int] | None:
        """Append pages so that `num_tokens` tokens after the computed ones have slots.

        Returns the appended page ids, or None (and no change) if the pool lacks them.
        """
        num_slots = state.num_computed_tokens + num_tokens
        num_missing = self.pages_for(num_slots) - len(state.page_ids)
        if num_missing <= 0:
            return []
        page_ids = self._pool.allocate(num_missing)
        if page_ids is not None:
            state.page_ids.extend(page_ids)
        return page_ids

    def commit(self, state: RequestState) -> None:
        """Offer pages that became full and computed to the prefix cache."""
        num_full_pages = state.num_computed_tokens // self.page_size
        if not self._prefix_caching or num_full_pages <= state.num_committed_pages:
            return
        self._extend_hashes(state, num_full_pages)
        for i in range(state.num_committed_pages, num_full_pages):
            if self._prefix_cache.commit(state.page_hashes[i], state.page_ids[i]):
                self._pool.set_cached(state.page_ids[i], True)
        state.num_committed_pages = num_full_pages

    def free(self, state: RequestState) -> None:
        """Give the request's pages back; cached ones stay findable."""
        self._pool.release(state.page_ids)
        state.page_ids = []
        state.num_committed_pages = 0
        state.num_computed_tokens = 0

    def discard(self, state: RequestState) -> None:
        """Give back the pages of a request that failed: none of them is to be trusted again."""
        for page_id in state.page_ids:
            if self._prefix_cache.evict(page_id):
                self._pool.set_cached(page_id, False)
        self.free(state)

    def check(self) -> None:
        """Assert that the pool's books are in order and agree with the cache's; for tests."""
        self._pool.check()
        assert self._pool.num_cached == len(self._prefix_cache), "a cached page cannot be found"

    def _extend_hashes(self, state: RequestState, num_full_pages: int) -> None:
        hashes = state.page_hashes
        parent = hashes[-1] if hashes else root_hash(state.request.cache_salt)
        for i in range(len(hashes), num_full_pages):
            start = i * self.page_size
            parent = chain_hash(parent, state.token_ids[start : start + self.page_size])
            hashes.append(parent)
