"""Observations of a latency, counted here and told to their histogram many at a time."""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Histogram

_MAX_HELD = 256


class BulkHistogram(Histogram):
    """A histogram that takes many observations at once, each already in its bucket."""

    def observe_counts(self, counts: Sequence[int], total: float) -> None:
        """Take observations.

        Args:
            counts: how many there are above the bound before and up to each bound, the last of
                which is infinity.
            total: their sum.
        """
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class LatencyCounts:
    """Observations that are made with every token, for which a histogram's own way is too long.

    The histogram lacks at most `_MAX_HELD` of them, until `flush`.
    """

    def __init__(self, histogram: BulkHistogram, bounds_s: Sequence[float]) -> None:
        """`bounds_s`: the histogram's, ascending, without infinity."""
        self._histogram = histogram
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._total_s = 0.0
        self._num_held = 0

    def add(self, num_tokens: int, gap_s: float) -> None:
        """So many tokens came together, so long after those before them."""
        self._counts[bisect_left(self._bounds_s, gap_s / num_tokens)] += num_tokens
        self._total_s += gap_s
        self._num_held += num_tokens
        if self._num_held > _MAX_HELD:
            self.flush()

    def flush(self) -> None:
        """Tell the histogram of all that is held."""
        if not self._num_held:
            return
        self._histogram.observe_counts(self._counts, self._total_s)
        self._counts = [0] * len(self._counts)
        self._total_s, self._num_held = 0.0, 0
