"""Which cached page was computed after which: whom to doubt where one is damaged."""

from collections.abc import Callable

from leadline.engine.prefix_cache import PageHash


class PageChains:
    """The page before each cached one, in the pool or in the host tier."""

    def __init__(self, num_pages: int, is_known: Callable[[PageHash], bool]) -> None:
        """No pages yet.

        Args:
            num_pages: most pages that are cached at a time.
            is_known: whether a page is cached; the others are forgotten now and then.
        """
        self._max_entries = 2 * num_pages
        self._is_known = is_known
        self._parents: dict[PageHash, PageHash | None] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def note(self, page_hash: PageHash, parent: PageHash | None) -> None:
        """A page has been cached; `parent` is the one before it, None for the first of a chain."""
        if len(self._parents) >= self._max_entries:
            self._parents = {h: p for h, p in self._parents.items() if self._is_known(h)}
        self._parents[page_hash] = parent

    def doubtful(self, damaged: PageHash) -> list[PageHash]:
        """Pages that may have been computed from a damaged one, itself included.

        These are the pages after it, and those whose chain is not known to its beginning.
        """
        is_sound: dict[PageHash, bool] = {damaged: False}
        for page_hash in self._parents:
            path: list[PageHash] = []
            at: PageHash | None = page_hash
            while at is not None and at not in is_sound and at in self._parents:
                path.append(at)
                at = self._parents[at]
            verdict = at is None or is_sound.get(at, False)
            is_sound.update(dict.fromkeys(path, verdict))
        return [page_hash for page_hash, sound in is_sound.items() if not sound]
