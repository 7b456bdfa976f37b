"""How far the ranks of a unit have come with loading, as one view."""

import threading

from leadline.engine.unit.messages import RankReady

READY = "ready"
_SHOWN = 4  # ranks that are told of one by one


class LoadingProgress:
    """Filled in by the link's thread, read by another."""

    def __init__(self, num_ranks: int) -> None:
        self._stages = ["starting"] * num_ranks
        self._ready: dict[int, RankReady] = {}
        self._lock = threading.Lock()

    def take_stage(self, rank: int, stage: str) -> None:
        """A rank is busy with something else."""
        with self._lock:
            self._stages[rank] = stage

    def take_ready(self, ready: RankReady) -> None:
        """A rank has loaded."""
        with self._lock:
            self._ready[ready.rank] = ready
            self._stages[ready.rank] = READY

    @property
    def ready(self) -> list[RankReady]:
        """What the ranks told that have loaded, in rank order."""
        with self._lock:
            return [self._ready[rank] for rank in sorted(self._ready)]

    @property
    def stage(self) -> str:
        """What the ranks are busy with, in a phrase: those that are behind one by one."""
        with self._lock:
            stages = list(self._stages)
        busy = [rank for rank, stage in enumerate(stages) if stage != READY]
        parts = [f"rank {rank}: {stages[rank]}" for rank in busy[:_SHOWN]]
        if len(busy) > _SHOWN:
            parts.append(f"{len(busy) - _SHOWN} more are loading")
        ready = f"starting ranks: {len(stages) - len(busy)} of {len(stages)} ready"
        return "; ".join([ready, *parts])
