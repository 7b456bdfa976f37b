"""Page tables of requests, on top of the page pool, the prefix cache and the host tier."""

import time
from collections.abc import Callable

from leadline.engine.host_tier import HostTier
from leadline.engine.kv_events import MEDIUM_HOST, KVEventLog
from leadline.engine.page_arrival import PageArrival
from leadline.engine.page_chains import PageChains
from leadline.engine.page_pool import PagePool
from leadline.engine.page_times import PageTimes
from leadline.engine.prefix_cache import PageHash, PrefixCache
from leadline.engine.request_state import RequestState
from leadline.engine.step import MoveKind, PageMove


class KVCacheManager:
    """Gives requests their pages and shares full pages between requests.

    Attributes:
        num_queried_tokens: tokens looked up in the prefix cache since start.
        num_hit_tokens: tokens found there since start.
        num_evictions: cached pages given away since start.
        host: the host tier's books.
        times: of the pool's pages.
    """

    def __init__(
        self,
        num_pages: int,
        page_size: int,
        *,
        prefix_caching: bool,
        num_host_pages: int = 0,
        verify_pages: bool = False,
        events: KVEventLog | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.page_size = page_size
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self.num_evictions = 0
        self.host = HostTier(num_host_pages if prefix_caching else 0)
        self.times = PageTimes(num_pages, now)
        self._events = events
        self._prefix_cache = PrefixCache()
        self._prefix_caching = prefix_caching
        self._pool = PagePool(num_pages, on_reclaim=self._on_reclaim)
        self._chains: PageChains | None = None
        if verify_pages:
            self._chains = PageChains(num_pages + self.host.num_places, self._is_known)
        self._moves: list[PageMove] = []
        self._checks: dict[int, None] = {}
        self._arrivals: dict[RequestState, PageArrival] = {}
        self._damaged_ids: set[int] = set()

    @property
    def num_pages(self) -> int:
        """Pages in the pool."""
        return self._pool.num_pages

    @property
    def num_referenced_pages(self) -> int:
        """Pages that requests hold."""
        return self._pool.num_referenced

    @property
    def num_available_pages(self) -> int:
        """Pages that no request holds."""
        return self._pool.num_available

    @property
    def num_cached_pages(self) -> int:
        """Pages of the pool that the prefix cache can find."""
        return len(self._prefix_cache)

    def page_states(self) -> bytes:
        """See `PagePool.states`."""
        return self._pool.states()

    def pages_for(self, num_tokens: int) -> int:
        """Pages that hold `num_tokens` tokens."""
        return -(-num_tokens // self.page_size)

    def take_moves(self) -> list[PageMove]:
        """The copies that have become due since the last call, in order."""
        moves, self._moves = self._moves, []
        return moves

    def take_checks(self) -> list[int]:
        """The cached pages that have to be checked since the last call."""
        checks, self._checks = list(self._checks), {}
        return checks

    def admit(self, state: RequestState) -> bool:
        """Give a request a slot for each known token, its leading pages from the caches.

        At least one known token stays to be computed, since its logits are needed. A request that
        wants log-probabilities of its prompt reads no cached page. Pages of the host tier are only
        planned to be loaded, and cached pages may have to be checked: the request `is_loading`
        until `finish_load`.

        Returns False, and changes nothing, if the pool lacks pages.
        """
        assert not state.page_ids, f"{state.request_id} has pages already"
        num_full_pages, hits = 0, list[int]()
        wants_prompt = state.request.params.num_prompt_logprobs is not None
        if self._prefix_caching and not (wants_prompt and state.num_output_tokens == 0):
            num_full_pages = (len(state.token_ids) - 1) // self.page_size
            state.extend_hashes(num_full_pages, self.page_size)
            hits = self._prefix_cache.match(state.page_hashes[:num_full_pages])
        for page_id in hits:
            self._pool.acquire(page_id)
        page_ids = self._take_pages(self.pages_for(len(state.token_ids)) - len(hits))
        if page_ids is None:
            self._pool.release(hits)
            return False
        self.times.reuse(hits)
        state.page_ids = hits + page_ids
        state.num_committed_pages = len(hits)
        state.num_computed_tokens = len(hits) * self.page_size
        # After the pool has given away what it had to: that may have stored pages of this chain.
        host_ids = self.host.match(state.page_hashes[len(hits) : num_full_pages])
        for page_id, host_id in zip(page_ids, host_ids, strict=False):
            self._moves.append(PageMove(MoveKind.LOAD, page_id, host_id))
        checked_ids = [] if self._chains is None else hits
        arrival = PageArrival(host_ids, checked_ids, num_full_pages - len(hits))
        if host_ids or checked_ids:
            state.is_loading = True
            self._arrivals[state] = arrival
            self._checks.update(dict.fromkeys(checked_ids))
        else:
            self._record_lookup(state, arrival, num_loaded=0)
        return True

    def finish_load(self, state: RequestState, failed_host_ids: set[int]) -> bool:
        """Pages from the host tier have arrived, up to the first whose checksum was wrong.

        Returns False if a page of the pool is damaged: the request has lost its pages, and is to be
        admitted anew.
        """
        arrival = self._arrivals.pop(state)
        host_ids, num_good = arrival.host_ids, 0
        state.is_loading = False
        for host_id in host_ids:
            if host_id in failed_host_ids:
                break
            num_good += 1
        for host_id in failed_host_ids.intersection(host_ids):
            page_hash = self.host.drop(host_id)
            if page_hash is not None:
                if self._events:
                    self._events.removed(page_hash, MEDIUM_HOST)
                self._drop_chains(page_hash)
        self.host.num_loaded_pages += num_good
        self.host.num_failed_loads += len(host_ids) - num_good
        if not self._damaged_ids.isdisjoint(arrival.checked_ids):
            self.free(state)
            return False
        self._record_lookup(state, arrival, num_loaded=num_good)
        state.num_computed_tokens += num_good * self.page_size
        if state.num_cached_tokens is None:
            state.num_host_tokens = num_good * self.page_size
        self.commit(state)
        return True

    def drop_damaged(self, page_ids: list[int]) -> list[int]:
        """Make damaged pages unfindable, and all that may have been computed from them.

        Who holds such a page keeps it until `free`, and shares nothing that it computes after it.

        Returns those that were not known to be damaged.
        """
        page_ids = [page_id for page_id in page_ids if page_id not in self._damaged_ids]
        self._damaged_ids.update(page_ids)
        for page_id in page_ids:
            page_hash = self._prefix_cache.hash_of(page_id)
            if page_hash is not None:
                self._drop_chains(page_hash)
        return page_ids

    def allocate(self, state: RequestState, num_slots: int) -> list[int] | None:
        """Append pages so that the first `num_slots` tokens have slots.

        Returns the appended page ids, or None (and no change) if the pool lacks them.
        """
        num_missing = self.pages_for(num_slots) - len(state.page_ids)
        if num_missing <= 0:
            return []
        page_ids = self._take_pages(num_missing)
        if page_ids is not None:
            state.page_ids.extend(page_ids)
        return page_ids

    def commit(self, state: RequestState) -> None:
        """Offer pages that became full and computed to the prefix cache."""
        num_full_pages = state.num_computed_tokens // self.page_size
        first = state.num_committed_pages
        if not self._prefix_caching or num_full_pages <= first:
            return
        if self._damaged_ids and not self._damaged_ids.isdisjoint(state.page_ids):
            return
        state.extend_hashes(num_full_pages, self.page_size)
        for i in range(first, num_full_pages):
            if self._prefix_cache.commit(state.page_hashes[i], state.page_ids[i]):
                self._pool.set_cached(state.page_ids[i], True)
                self._announce(state, i)
                if self._chains is not None:
                    parent = state.page_hashes[i - 1] if i else None
                    self._chains.note(state.page_hashes[i], parent)
        state.num_committed_pages = num_full_pages

    def free(self, state: RequestState) -> None:
        """Give the request's pages back; cached ones stay findable."""
        self.times.release(state.page_ids)
        self._pool.release(state.page_ids)
        state.page_ids = []
        state.num_committed_pages = 0
        state.num_computed_tokens = 0

    def distrust(self, state: RequestState) -> None:
        """Make the pages of a request that failed unfindable; they stay its own until `free`."""
        for page_id in state.page_ids:
            page_hash = self._prefix_cache.evict(page_id)
            if page_hash is not None:
                self._pool.set_cached(page_id, False)
                if self._events:
                    self._events.removed(page_hash)

    def reset(self) -> int:
        """Forget every cached page, in the host tier too; returns how many of the pool there were.

        Pages that requests hold stay theirs; nobody will find them.
        """
        page_ids = self._prefix_cache.page_ids()
        for page_id in page_ids:
            if self._prefix_cache.evict(page_id) is not None:
                self._pool.set_cached(page_id, False)
        self.host.clear()
        for arrival in self._arrivals.values():
            arrival.host_ids.clear()
        if self._events:
            self._events.cleared()
        return len(page_ids)

    def check(self) -> None:
        """Assert that the pool's books are in order and agree with the cache's; for tests."""
        self._pool.check()
        self.host.check()
        assert self._pool.num_cached == len(self._prefix_cache), "a cached page cannot be found"

    def _take_pages(self, num_pages: int) -> list[int] | None:
        page_ids = self._pool.allocate(num_pages)
        if page_ids is not None:
            self.times.take(page_ids)
            self._damaged_ids.difference_update(page_ids)
        return page_ids

    def _is_known(self, page_hash: PageHash) -> bool:
        return page_hash in self._prefix_cache or page_hash in self.host

    def _drop_chains(self, damaged: PageHash) -> None:
        """Forget a page, and those after it, wherever they are."""
        if self._chains is None:
            return
        for page_hash in self._chains.doubtful(damaged):
            for page_id in self._prefix_cache.match([page_hash]):
                self._prefix_cache.evict(page_id)
                self._pool.set_cached(page_id, False)
                if self._events:
                    self._events.removed(page_hash)
            for host_id in self.host.match([page_hash]):
                self.host.drop(host_id)
                if self._events:
                    self._events.removed(page_hash, MEDIUM_HOST)

    def _on_reclaim(self, page_id: int) -> None:
        """A cached page is given away: its content goes to the host tier, if there is one."""
        page_hash = self._prefix_cache.evict(page_id)
        assert page_hash is not None, f"page {page_id} was cached under no hash"
        self.num_evictions += 1
        self.times.evict(page_id)
        host_id, evicted = self.host.put(page_hash)
        if host_id is not None:
            self.host.num_stored_pages += 1
            self._moves.append(PageMove(MoveKind.STORE, page_id, host_id))
        if self._events:
            if evicted is not None:
                self._events.removed(evicted, MEDIUM_HOST)
            if host_id is not None:
                self._events.copied_to_host(page_hash)
            self._events.removed(page_hash)

    def _announce(self, state: RequestState, index: int) -> None:
        if self._events:
            start = index * self.page_size
            self._events.stored(
                state.page_hashes[index],
                state.page_hashes[index - 1] if index else None,
                state.token_ids[start : start + self.page_size],
                state.request.cache_salt,
            )

    def _record_lookup(self, state: RequestState, arrival: PageArrival, *, num_loaded: int) -> None:
        """Count a request's lookup at its first admission, before what was loaded is its own."""
        if self._prefix_caching and state.num_cached_tokens is None:
            self.num_queried_tokens += len(state.token_ids)
            self.num_hit_tokens += state.num_computed_tokens
        self.host.num_queried_tokens += arrival.num_missed_pages * self.page_size
        self.host.num_hit_tokens += num_loaded * self.page_size
