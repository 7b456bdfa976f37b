"""How long a step will take, learned from the steps before it."""

from collections import deque
from typing import NamedTuple

import numpy as np

WINDOW_STEPS = 128  # steps that the fit looks back on
REFIT_STEPS = 4  # so often it is made anew
MIN_STEPS = 8  # before this many, nothing is predicted


class StepSize(NamedTuple):
    """What a step has to do.

    Attributes:
        num_tokens: tokens computed, verified drafts included.
        num_pairs: pairs of a new token and a token that it attends to.
        num_drafts: drafts proposed.
    """

    num_tokens: int
    num_pairs: int = 0
    num_drafts: int = 0


class StepCost:
    """seconds = fixed + tokens + pairs + drafts, each with a rate that is never negative.

    Least squares over recent steps; a rate that would come out negative is left out of the fit.

    Attributes:
        num_steps: steps taken in since start.
    """

    def __init__(self) -> None:
        self.num_steps = 0
        self._sizes: deque[tuple[float, ...]] = deque(maxlen=WINDOW_STEPS)
        self._seconds: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._rates = np.zeros(4)

    @property
    def is_known(self) -> bool:
        """Whether `predict` is worth asking."""
        return self.num_steps >= MIN_STEPS

    @property
    def per_token_s(self) -> float:
        """Seconds that one more token costs."""
        return float(self._rates[1])

    @property
    def per_pair_s(self) -> float:
        """Seconds that one more token attended to costs."""
        return float(self._rates[2])

    def add(self, size: StepSize, seconds: float) -> None:
        """Take in a measured step."""
        self.num_steps += 1
        self._sizes.append((1.0, *map(float, size)))
        self._seconds.append(seconds)
        if self.num_steps % REFIT_STEPS == 0 or self.num_steps == MIN_STEPS:
            self._fit()

    def predict(self, size: StepSize) -> float:
        """Seconds that a step of this size takes."""
        return float(self._rates @ np.array((1.0, *size)))

    def _fit(self) -> None:
        sizes, seconds = np.array(self._sizes), np.array(self._seconds)
        scale = np.maximum(sizes.max(axis=0), 1.0)
        sizes = sizes / scale
        kept = list(range(sizes.shape[1]))
        while kept:
            part = sizes[:, kept]
            # A little weight towards small rates settles what the steps do not tell apart.
            normal = part.T @ part + 1e-6 * np.eye(len(kept))
            rates = np.linalg.solve(normal, part.T @ seconds)
            if rates.min() >= 0:
                break
            del kept[int(rates.argmin())]
        self._rates = np.zeros(sizes.shape[1])
        self._rates[kept] = rates if kept else 0.0
        self._rates /= scale
