"""Time as something that is passed in, so that tests and simulations own it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time."""

    def now(self) -> float:
        """Seconds since an arbitrary moment; never goes back."""
        ...


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.monotonic()


class VirtualClock:
    """A clock that moves only when told to."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now(self) -> float:
        """See `Clock.now`."""
        return self._now_s

    def advance(self, duration_s: float) -> None:
        """Let `duration_s` (at least 0) pass."""
        assert duration_s >= 0, f"time cannot run back by {-duration_s} s"
        self._now_s += duration_s
