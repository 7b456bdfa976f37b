"""How long cache pages live, lie idle, and until they are used again."""

from array import array
from collections.abc import Callable, Sequence

from leadline.engine.histogram import PAGE_TIME_BOUNDS_S, Recorder


class PageTimes:
    """Times of every page; each event costs a clock reading and a few stores a page.

    Attributes:
        lifetimes: of cached pages that were given away, since they were taken.
        idle_times: of the same, since a request last held them.
        reuse_gaps: between two requests that take the same page, a prefix hit being the second.
    """

    def __init__(self, num_pages: int, now: Callable[[], float]) -> None:
        """`now`: seconds since any moment."""
        self.lifetimes = Recorder(PAGE_TIME_BOUNDS_S)
        self.idle_times = Recorder(PAGE_TIME_BOUNDS_S)
        self.reuse_gaps = Recorder(PAGE_TIME_BOUNDS_S)
        self._now = now
        self._taken_s = array("d", bytes(8 * num_pages))
        self._used_s = array("d", bytes(8 * num_pages))
        self._released_s = array("d", bytes(8 * num_pages))

    def take(self, page_ids: Sequence[int]) -> None:
        """A request has got pages that hold nothing."""
        now_s = self._now()
        for page_id in page_ids:
            self._taken_s[page_id] = self._used_s[page_id] = now_s

    def reuse(self, page_ids: Sequence[int]) -> None:
        """A request has got cached pages."""
        now_s = self._now()
        for page_id in page_ids:
            self.reuse_gaps.observe(max(0.0, now_s - self._used_s[page_id]))
            self._used_s[page_id] = now_s

    def release(self, page_ids: Sequence[int]) -> None:
        """A request has given pages back; the last one that does so counts."""
        now_s = self._now()
        for page_id in page_ids:
            self._released_s[page_id] = now_s

    def evict(self, page_id: int) -> None:
        """A cached page is given away."""
        now_s = self._now()
        self.lifetimes.observe(max(0.0, now_s - self._taken_s[page_id]))
        self.idle_times.observe(max(0.0, now_s - self._released_s[page_id]))
