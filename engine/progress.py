"""Whether the engine gets on with its work, as its process is seen from outside."""

import time
from collections.abc import Callable

from leadline.engine.messages import EngineStats


class Progress:
    """What was asked of the engine, and when it last completed a step.

    Kept by the client alone: an engine that hangs could not tell. Work that its clients have given
    up counts until the engine has answered it. Requests do not count while the engine is paused,
    except for those that were sent to a sleeping one, which refuses them at once.

    Attributes:
        predicted_step_s: seconds that the longest step in flight should take; 0 while unknown.
        activity: what it has said that it is busy with, beside steps; empty for nothing.
        others_pending_since_s: as `pending_since_s`, of the engine's other clients; told from
            outside.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.predicted_step_s = 0.0
        self.activity = ""
        self.others_pending_since_s: float | None = None
        self._now = now
        self._num_requests = self._num_others = 0
        self._num_held = 0  # requests that came before the sleep, and wait for its end
        self._is_paused = self._is_asleep = False
        self._num_steps = 0
        self._step_s = self._news_s = self._pending_since_s = now()

    @property
    def age_s(self) -> float:
        """Seconds since a step was completed; before the first one, since the start."""
        return self._now() - self._step_s

    @property
    def waiting_s(self) -> float:
        """Seconds for which there has been work, and neither a step nor news of an activity."""
        since_s = [self.pending_since_s, self.others_pending_since_s]
        pending_s = [moment_s for moment_s in since_s if moment_s is not None]
        if self.activity:
            return self._now() - self._news_s
        return self._now() - max(self._news_s, min(pending_s)) if pending_s else 0.0

    @property
    def pending_since_s(self) -> float | None:
        """Since when this client has had work for the engine, by `now`; None without any."""
        return self._pending_since_s if self._num_pending else None

    @property
    def _num_pending(self) -> int:
        if self._is_asleep:
            num_requests = self._num_requests - self._num_held
        else:
            num_requests = 0 if self._is_paused else self._num_requests
        return self._num_others + num_requests

    def restart(self) -> None:
        """A new engine is ready: nothing has been asked of it."""
        self._step_s = self._news_s = self._now()
        self._num_requests = self._num_others = self._num_held = self._num_steps = 0
        self.predicted_step_s = 0.0
        self.activity = ""

    def ask(self, *, is_request: bool = False) -> None:
        """Something was asked that the engine will answer: to compute a request, or else."""
        if self._num_pending == 0:
            self._pending_since_s = self._now()
        self._num_requests += is_request
        self._num_others += not is_request

    def answer(self, *, is_request: bool = False) -> None:
        """It has answered."""
        self._num_requests -= is_request
        self._num_others -= not is_request
        self._num_held = min(self._num_held, self._num_requests)

    def hear(self, stats: EngineStats) -> None:
        """The engine has told how it fares."""
        self.predicted_step_s = stats.predicted_step_s
        state = (stats.is_paused, stats.sleep_level > 0)
        if (self._is_paused, self._is_asleep) != state:
            self._is_paused, self._is_asleep = state
            self._num_held = self._num_requests if self._is_asleep else 0
            self._pending_since_s = self._now()
        if stats.num_steps != self._num_steps:
            self._num_steps = stats.num_steps
            self._step_s = self._news_s = self._now()
        if stats.activity != self.activity:
            self.activity = stats.activity
            self._news_s = self._now()
