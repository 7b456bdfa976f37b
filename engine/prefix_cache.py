"""Finds pages by the tokens that they and everything before them hold."""

import hashlib
from array import array
from collections.abc import Sequence

PageHash = bytes
"""SHA-256 of a full page's tokens, chained to the page before it: it names a whole prefix."""


def root_hash(cache_salt: str) -> PageHash:
    """The parent of a request's first page; requests of different salt share nothing."""
    return hashlib.sha256(b"leadline prefix cache\0" + cache_salt.encode()).digest()


def chain_hash(parent: PageHash, token_ids: Sequence[int]) -> PageHash:
    """The hash of a full page that holds `token_ids` (each 0..2**32 - 1) after `parent`."""
    return hashlib.sha256(parent + array("I", token_ids).tobytes()).digest()


class PrefixCache:
    """A map from page hashes to pages, one page a hash.

    It holds no references: the page pool says which cached pages may be given away.
    """

    def __init__(self) -> None:
        self._page_ids: dict[PageHash, int] = {}
        self._hashes: dict[int, PageHash] = {}

    def __len__(self) -> int:
        return len(self._page_ids)

    def match(self, page_hashes: Sequence[PageHash]) -> list[int]:
        """The pages of the longest cached prefix of a chain."""
        page_ids = []
        for page_hash in page_hashes:
            page_id = self._page_ids.get(page_hash)
            if page_id is None:
                break
            page_ids.append(page_id)
        return page_ids

    def commit(self, page_hash: PageHash, page_id: int) -> bool:
        """Make a full, computed page findable.

        Returns False, and keeps the older page, if another one holds the same prefix already.
        """
        if page_hash in self._page_ids:
            return False
        self._page_ids[page_hash] = page_id
        self._hashes[page_id] = page_hash
        return True

    def __contains__(self, page_hash: PageHash) -> bool:
        return page_hash in self._page_ids

    def hash_of(self, page_id: int) -> PageHash | None:
        """What a page is cached under; None if it is not."""
        return self._hashes.get(page_id)

    def evict(self, page_id: int) -> PageHash | None:
        """Forget a page; returns its hash, or None if it was not cached."""
        page_hash = self._hashes.pop(page_id, None)
        if page_hash is not None:
            del self._page_ids[page_hash]
        return page_hash

    def page_ids(self) -> list[int]:
        """Every cached page."""
        return list(self._hashes)
