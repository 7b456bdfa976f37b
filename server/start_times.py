"""What the time of a start went to."""

import time


class StartTimes:
    """A stopwatch with names.

    Attributes:
        parts_s: seconds by name, in the order in which they came.
    """

    def __init__(self, begin_s: float) -> None:
        """`begin_s`: when the start began, by `time.monotonic`."""
        self.parts_s: dict[str, float] = {}
        self._last_s = begin_s
        self._stage = ""

    def end(self, name: str) -> None:
        """What has gone on since the last call was this."""
        now_s = time.monotonic()
        self.parts_s[name] = self.parts_s.get(name, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def begin_stage(self, stage: str) -> None:
        """The engine is busy with this from now on; what changes within a stage follows a colon."""
        name = stage.partition(":")[0]
        if name != self._stage:
            self.end_stage()
            self._stage = name

    def end_stage(self) -> None:
        """The engine's stage is over; before its first one, its process was starting."""
        self.end(self._stage or "engine process")
        self._stage = ""

    def __str__(self) -> str:
        parts_s = sorted(self.parts_s.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {part_s:.2f} s" for name, part_s in parts_s if part_s >= 0.005)
