"""How uneven a step's tokens fall on the ranks' experts, with a placement and the noise of few."""

from collections.abc import Callable

import msgspec
import numpy as np

from leadline.engine.expert_balance.expert_map import EMPTY, ExpertMap, balancedness, initial_map
from leadline.engine.expert_balance.placement import ExpertLayout, place
from leadline.engine.planning.step_load import StepLoad
from leadline.engine.planning.unit_times import LayerTimes, UnitTimes

NUM_LAYERS = 58
TOP_K = 8


class ExpertSkew:
    """Experts whose popularity is lognormal, in order or placed by load."""

    def __init__(self, layout: ExpertLayout, sigma: float, *, placed: bool, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._loads = rng.lognormal(0.0, sigma, (NUM_LAYERS, layout.num_experts))
        self._placed = placed
        self._rng = rng
        initial = initial_map(layout.num_experts, layout.num_ranks, layout.num_redundant)
        self._maps = [initial] * NUM_LAYERS
        self.layout = layout
        self._place()

    def lose(self, rank: int) -> None:
        """A rank is dead: the survivors hold all experts."""
        dead = self.layout.dead_ranks | {rank}
        self.layout = msgspec.structs.replace(self.layout, dead_ranks=dead)
        self._place()

    def _place(self) -> None:
        """Also where experts are in order: survivors take over what a dead rank held."""
        self._known: dict[int, float] = {}
        if self._placed or self.layout.dead_ranks:
            flat = np.ones(self.layout.num_experts)
            loads = self._loads if self._placed else [flat] * NUM_LAYERS
            pairs = zip(loads, self._maps, strict=True)
            self._maps = [place(load, self.layout, current) for load, current in pairs]

    def balancedness(self, num_tokens: int) -> float:
        """Mean over largest rank load, averaged over layers, in a step of the unit."""
        size = 1 << max(0, num_tokens - 1).bit_length()
        if size not in self._known:
            pairs = zip(self._maps, self._loads, strict=True)
            self._known[size] = float(np.mean([self._sample(m, x, size) for m, x in pairs]))
        return self._known[size]

    def _sample(self, current: ExpertMap, load: np.ndarray, num_tokens: int) -> float:
        slots = np.array(current.slots)
        counts = np.bincount(slots[slots != EMPTY], minlength=len(load))
        shares = np.where(slots == EMPTY, 0.0, (load / counts)[slots])
        drawn = self._rng.multinomial(TOP_K * num_tokens, shares / shares.sum())
        rank_loads = drawn.reshape(current.num_ranks, -1).sum(axis=1)
        return balancedness(rank_loads, self.layout.dead_ranks)


class SkewedTimes(UnitTimes):
    """Step times of a unit whose busiest rank has more of the experts' work than the mean."""

    def skew(self, balancedness: Callable[[int], float]) -> None:
        """`balancedness`: of a step, by the unit's tokens."""
        self._balancedness = balancedness

    def layer(self, load: StepLoad) -> LayerTimes:
        """See `UnitTimes.layer`."""
        times = super().layer(load)
        share = self._balancedness(load.unit_tokens)
        times.experts_s /= share
        times.dispatch_s /= share
        times.combine_s /= share
        return times
