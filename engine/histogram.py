"""Histograms that the engine keeps, and that its clients show."""

from bisect import bisect_left

import msgspec

STEP_TOKENS_BOUNDS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
STEP_TIME_BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
DRAFT_DEPTH_BOUNDS = (0, 1, 2, 3, 4, 5, 6, 7, 8)
PAGE_TIME_BOUNDS_S = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    *(20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
)
GRAMMAR_TIME_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram(msgspec.Struct, array_like=True):
    """Observations by bucket, as they cross processes; both sides know the bounds.

    Attributes:
        counts: observations in each bucket, the last one's above all bounds; empty for none at all.
        total: sum of the observations.
    """

    counts: list[int] = msgspec.field(default_factory=list)
    total: float = 0.0


class Recorder:
    """Takes observations in.

    A value belongs to the first bucket whose bound it does not exceed, as in Prometheus.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds`: of the buckets, ascending."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Take in one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> Histogram:
        """All observations since start."""
        return Histogram(list(self._counts), self._total)
