"""Who holds which page: a free list, reference counts, and an LRU of cached pages."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import IntFlag


class PageState(IntFlag):
    """Where a page is; a page that is neither is free."""

    CACHED = 1
    REFERENCED = 2


class PagePool:
    """Hands out page ids 0..num_pages - 1; every operation is O(1) a page.

    A page is in exactly one of three places: free, referenced (by the requests whose page table
    holds it), or reclaimable: nobody refers to it, but its tokens are cached and may be asked for
    again. Reclaimable pages are given away, the least recently released first, once no page is
    free.
    """

    def __init__(self, num_pages: int, on_reclaim: Callable[[int], object]) -> None:
        """`on_reclaim` is told each cached page that is given away."""
        self.num_pages = num_pages
        self._on_reclaim = on_reclaim
        self._free = list(range(num_pages - 1, -1, -1))
        self._num_references = [0] * num_pages
        self._is_cached = bytearray(num_pages)
        self._reclaimable: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Pages that `allocate` could hand out now."""
        return len(self._free) + len(self._reclaimable)

    @property
    def num_referenced(self) -> int:
        """Pages that at least one request holds."""
        return self.num_pages - self.num_available

    @property
    def num_cached(self) -> int:
        """Pages marked as cached, referenced or not."""
        return self._is_cached.count(1)

    def states(self) -> bytes:
        """The `PageState` of every page, by its id."""
        referenced = bytes(map(bool, self._num_references))
        held = referenced.translate(bytes([0, PageState.REFERENCED, *bytes(254)]))
        return bytes(map(int.__or__, self._is_cached, held))

    def allocate(self, num_pages: int) -> list[int] | None:
        """Take pages with one reference each, or None (and no change) if there are too few."""
        if num_pages > self.num_available:
            return None
        return [self._take() for _ in range(num_pages)]

    def acquire(self, page_id: int) -> None:
        """Add a reference to a referenced or reclaimable page."""
        if self._num_references[page_id] == 0:
            del self._reclaimable[page_id]
        self._num_references[page_id] += 1

    def release(self, page_ids: Sequence[int]) -> None:
        """Drop one reference to each page of a page table.

        Goes from the table's end to its start: the end of a chain is of no use without its start,
        and so is reclaimed first.
        """
        for page_id in reversed(page_ids):
            assert self._num_references[page_id] > 0, f"page {page_id} is not referenced"
            self._num_references[page_id] -= 1
            if self._num_references[page_id] == 0:
                if self._is_cached[page_id]:
                    self._reclaimable[page_id] = None
                else:
                    self._free.append(page_id)

    def set_cached(self, page_id: int, cached: bool) -> None:
        """Whether a page is worth keeping once nobody refers to it."""
        self._is_cached[page_id] = cached
        if not cached and page_id in self._reclaimable:
            del self._reclaimable[page_id]
            self._free.append(page_id)

    def check(self) -> None:
        """Assert that every page is in exactly one place; for tests, O(num_pages)."""
        free = set(self._free)
        assert len(free) == len(self._free), "a page is free twice"
        assert not free & self._reclaimable.keys(), "a free page is reclaimable"
        for page_id, num_references in enumerate(self._num_references):
            unreferenced = page_id in free or page_id in self._reclaimable
            assert (num_references == 0) == unreferenced, f"page {page_id}: {num_references} refs"
        assert not any(self._is_cached[page_id] for page_id in free), "a free page is cached"
        assert all(self._is_cached[page_id] for page_id in self._reclaimable)

    def _take(self) -> int:
        if self._free:
            page_id = self._free.pop()
        else:
            page_id, _ = self._reclaimable.popitem(last=False)
            self._is_cached[page_id] = False
            self._on_reclaim(page_id)
        self._num_references[page_id] = 1
        return page_id
