"""The pages of the simulated executor, and its host tier: a slot holds what was written there."""

from collections.abc import Callable, Sequence

from leadline.engine.executor.base import Capacity
from leadline.engine.step import MoveKind, PageMove

Content = list[int | None]


class SimulatedPages:
    """A slot holds the hash of all tokens up to its own; None for garbage.

    What a page held when it became full is kept beside it, in place of a checksum.
    """

    def __init__(self, capacity: Capacity, damage: Callable[[int], bool]) -> None:
        """`damage`: whether a page loaded from this place of the host tier is found damaged."""
        self._capacity = capacity
        self._damage = damage
        self.clear()

    def clear(self) -> None:
        """Forget all content."""
        num_pages = self._capacity.num_pages
        self._pages: list[Content] = [self._garbage() for _ in range(num_pages)]
        self._sealed: list[Content] = [self._garbage() for _ in range(num_pages)]
        self._host: dict[int, tuple[Content, Content]] = {}

    def corrupt(self, page_id: int) -> None:
        """Change a slot of a page, as a fault of the memory would; for tests."""
        self._pages[page_id][0] = -1

    def find_damaged(self, page_ids: Sequence[int]) -> list[int]:
        """Pages that are not what they were when they became full."""
        return [page for page in page_ids if self._pages[page] != self._sealed[page]]

    def move(self, move: PageMove) -> bool:
        """Copy a page; False if a load finds it damaged."""
        page_id, host_id = move.page_id, move.host_id
        assert 0 <= host_id < self._capacity.num_host_pages, "no such place in the host tier"
        if move.kind is MoveKind.STORE:
            assert None not in self._pages[page_id], f"page {page_id} is stored but not full"
            self._host[host_id] = list(self._pages[page_id]), self._sealed[page_id]
            return True
        assert host_id in self._host, f"nothing is stored at {host_id}"
        content, sealed = self._host[host_id]
        if self._damage(host_id) or content != sealed:
            self._pages[page_id] = self._garbage()
            return False
        self._pages[page_id], self._sealed[page_id] = list(content), sealed
        return True

    def check_context(self, page_ids: Sequence[int], expected: Sequence[int]) -> None:
        """Assert that the slots before a row hold what the model would have written there."""
        page_size = self._capacity.page_size
        for i in range(-(-len(expected) // page_size)):
            part = expected[i * page_size : (i + 1) * page_size]
            found = self._pages[page_ids[i]][: len(part)]
            assert found == part, f"page {page_ids[i]} is stale"

    def write(self, page_ids: Sequence[int], start: int, values: Sequence[int | None]) -> None:
        """Write the slots of positions from `start` on."""
        for position, value in enumerate(values, start):
            page, slot = divmod(position, self._capacity.page_size)
            self._pages[page_ids[page]][slot] = value

    def seal(self, page_ids: Sequence[int], start: int, end: int) -> None:
        """Keep what the pages hold that the tokens from `start` to `end` have filled."""
        page_size = self._capacity.page_size
        for page_id in page_ids[start // page_size : end // page_size]:
            self._sealed[page_id] = list(self._pages[page_id])

    def _garbage(self) -> Content:
        return [None] * self._capacity.page_size
