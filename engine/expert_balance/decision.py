"""Whether experts should move, by the load of a window of steps."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from leadline.engine.expert_balance.expert_map import ExpertMap, balancedness
from leadline.engine.expert_balance.placement import ExpertLayout, place

MIN_GAIN = 0.02  # of balancedness; a layer that gains less stays as it is
MIN_TOKENS_PER_EXPERT = 32  # in the window, on average; of fewer the noise is larger than the gain


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """New maps of those layers that are to change.

    Attributes:
        maps: by layer.
        balancedness: of the window, with the maps as they were; the mean over all layers.
        predicted: of the same load with the new maps.
    """

    maps: dict[int, ExpertMap]
    balancedness: float
    predicted: float


def decide(
    loads: Mapping[int, Sequence[int]], maps: Mapping[int, ExpertMap], layout: ExpertLayout
) -> Decision:
    """Place anew what is worth it.

    Args:
        loads: of each layer, (token, expert) pairs of the window by expert.
        maps: of the same layers, as they are.
        layout: ranks and slots.
    """
    changed, before, after = {}, [], []
    for layer, current in maps.items():
        load = np.asarray(loads[layer], np.float64)
        now = balancedness(current.rank_loads(load), layout.dead_ranks)
        predicted = now
        if load.sum() >= MIN_TOKENS_PER_EXPERT * len(load) and now < 1 - MIN_GAIN:
            new = place(load, layout, current)
            then = balancedness(new.rank_loads(load), layout.dead_ranks)
            if then - now >= MIN_GAIN:
                changed[layer], predicted = new, then
        before.append(now)
        after.append(predicted)
    return Decision(
        maps=changed,
        balancedness=float(np.mean(before)) if before else 1.0,
        predicted=float(np.mean(after)) if after else 1.0,
    )
