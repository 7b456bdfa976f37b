"""What the prefix cache of each rank is believed to hold."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from leadline.engine.prefix_cache import PageHash


class PageIndex:
    """Pages by rank, those used last kept longest, as the ranks' own pools do.

    It is told what is sent to a rank, and may be told what the rank's cache events say. Where it
    errs, a page is computed once more: nothing depends on its being right.
    """

    def __init__(self, num_ranks: int, max_pages: int) -> None:
        """`max_pages`: of each rank's pool."""
        self._max_pages = max_pages
        self._pages: list[OrderedDict[PageHash, None]] = [OrderedDict() for _ in range(num_ranks)]

    def num_hits(self, rank: int, page_hashes: Sequence[PageHash]) -> int:
        """Pages at the beginning of a chain that the rank has."""
        pages = self._pages[rank]
        for number, page_hash in enumerate(page_hashes):
            if page_hash not in pages:
                return number
        return len(page_hashes)

    def add(self, rank: int, page_hashes: Sequence[PageHash]) -> None:
        """A chain is used on a rank, or will be; its first page is given away last."""
        pages = self._pages[rank]
        for page_hash in reversed(page_hashes):
            pages[page_hash] = None
            pages.move_to_end(page_hash)
        while len(pages) > self._max_pages:
            pages.popitem(last=False)

    def remove(self, rank: int, page_hashes: Iterable[PageHash]) -> None:
        """A rank has given pages away."""
        for page_hash in page_hashes:
            self._pages[rank].pop(page_hash, None)

    def clear(self, rank: int) -> None:
        """A rank has nothing any more."""
        self._pages[rank].clear()

    def num_pages(self, rank: int) -> int:
        """Pages that a rank is believed to hold."""
        return len(self._pages[rank])
