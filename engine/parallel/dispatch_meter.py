"""What the way of tokens to their experts and back has cost a rank."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class DispatchCounts(msgspec.Struct, kw_only=True):
    """Counters since start, of all layers together.

    Attributes:
        num_layers: layers passed, those without a token of this rank included.
        num_tokens: tokens of this rank that were dispatched, each once a layer.
        num_bytes: sent to other ranks.
        seconds: in dispatch and combine, waiting for other ranks included.
    """

    num_layers: int = 0
    num_tokens: int = 0
    num_bytes: int = 0
    seconds: float = 0.0

    def add(self, other: "DispatchCounts") -> None:
        """Take in what another rank, or another step, has counted."""
        self.num_layers += other.num_layers
        self.num_tokens += other.num_tokens
        self.num_bytes += other.num_bytes
        self.seconds += other.seconds


class DispatchMeter:
    """Counts, for one reader that takes what there is since it last asked."""

    def __init__(self) -> None:
        self.counts = DispatchCounts()

    @contextmanager
    def time(self) -> Iterator[None]:
        """Count the seconds of what happens meanwhile, by the host's clock."""
        begin_s = time.perf_counter()
        try:
            yield
        finally:
            self.counts.seconds += time.perf_counter() - begin_s

    def take(self) -> DispatchCounts:
        """What has been counted since the last call."""
        counts, self.counts = self.counts, DispatchCounts()
        return counts
