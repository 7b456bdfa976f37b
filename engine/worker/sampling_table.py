"""Sampling parameters of the held requests, a slot each."""

from collections.abc import Sequence

import numpy as np
import torch

from leadline.engine.request import SamplingParams
from leadline.kernels.sampling import SamplingBatch

_FIRST_SIZE = 64  # slots; the table doubles when it is full
_PARAMETERS = np.dtype(
    [
        ("temperature", np.float32),
        ("top_k", np.int64),
        ("top_p", np.float32),
        ("min_p", np.float32),
        ("seed", np.uint64),
    ]
)


class SamplingTable:
    """A row of numbers for each held request, so that a step's batch is made by indexing."""

    def __init__(self) -> None:
        self._rows = np.zeros(_FIRST_SIZE, _PARAMETERS)
        self._free = list(range(_FIRST_SIZE - 1, -1, -1))

    def take(self, params: SamplingParams) -> int:
        """A slot that holds these parameters."""
        if not self._free:
            size = len(self._rows)
            self._rows = np.concatenate((self._rows, np.zeros(size, _PARAMETERS)))
            self._free = list(range(2 * size - 1, size - 1, -1))
        slot = self._free.pop()
        self._rows[slot] = (
            params.temperature,
            params.top_k,
            params.top_p,
            params.min_p,
            params.seed,
        )
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def batch(self, slots: Sequence[int], positions: Sequence[int]) -> SamplingBatch:
        """Parameters of samples: for each its request's slot, and its position."""
        rows = self._rows[np.asarray(slots, np.int64)]
        columns = {name: rows[name].copy() for name in _PARAMETERS.names or ()}
        cuts = (columns["top_k"] > 0) | (columns["top_p"] < 1) | (columns["min_p"] > 0)
        return SamplingBatch(
            temperature_B=torch.from_numpy(columns["temperature"]),
            top_k_B=torch.from_numpy(columns["top_k"]),
            top_p_B=torch.from_numpy(columns["top_p"]),
            min_p_B=torch.from_numpy(columns["min_p"]),
            seeds_B=torch.from_numpy(columns["seed"].view(np.int64)),
            positions_B=torch.tensor(positions, dtype=torch.int64),
            all_greedy=not columns["temperature"].any(),
            no_cuts=not cuts.any(),
        )
