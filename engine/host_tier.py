"""Which page lies where in the host tier: a bounded store of pages evicted from the pool."""

from collections import OrderedDict

from leadline.engine.prefix_cache import PageHash


class HostTier:
    """Places 0..num_places - 1, one page each, the least recently used given away first.

    It only keeps the books; the executor copies (`step.PageMove`). Moves are carried out in the
    order in which they are planned, so a place may be given away while a load from it is planned.

    Attributes:
        num_queried_tokens: tokens that the pool lacked and that were looked for here.
        num_hit_tokens: tokens found here.
        num_stored_pages: pages copied here since start.
        num_loaded_pages: pages copied back since start.
        num_failed_loads: pages that were of no use because of a wrong checksum, theirs or that of
            one before them.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.num_queried_tokens = 0
        self.num_hit_tokens = 0
        self.num_stored_pages = 0
        self.num_loaded_pages = 0
        self.num_failed_loads = 0
        self._places: OrderedDict[PageHash, int] = OrderedDict()
        self._hashes: dict[int, PageHash] = {}
        self._free = list(range(num_places - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, page_hash: PageHash) -> bool:
        return page_hash in self._places

    def put(self, page_hash: PageHash) -> tuple[int | None, PageHash | None]:
        """A place for a page, or None if it is here already (or there is no tier).

        Returns the place, and the hash of the page that had to go for it, if one had to.
        """
        if page_hash in self._places:
            self._places.move_to_end(page_hash)
            return None, None
        if not self.num_places:
            return None, None
        evicted = None
        if self._free:
            host_id = self._free.pop()
        else:
            evicted, host_id = self._places.popitem(last=False)
        self._places[page_hash] = host_id
        self._hashes[host_id] = page_hash
        return host_id, evicted

    def match(self, page_hashes: list[PageHash]) -> list[int]:
        """The places of the longest prefix of a chain that is here; they count as used."""
        host_ids = []
        for page_hash in page_hashes:
            host_id = self._places.get(page_hash)
            if host_id is None:
                break
            self._places.move_to_end(page_hash)
            host_ids.append(host_id)
        return host_ids

    def drop(self, host_id: int) -> PageHash | None:
        """Forget what lies in a place; returns its hash, or None if nothing did."""
        page_hash = self._hashes.pop(host_id, None)
        if page_hash is None:
            return None
        del self._places[page_hash]
        self._free.append(host_id)
        return page_hash

    def clear(self) -> None:
        """Forget everything."""
        for host_id in list(self._hashes):
            self.drop(host_id)

    def check(self) -> None:
        """Assert that every place is in exactly one state; for tests."""
        assert len(self._free) + len(self._places) == self.num_places
        assert {self._hashes[place] for place in self._places.values()} == self._places.keys()
        assert not set(self._free) & self._hashes.keys()
