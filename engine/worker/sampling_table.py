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
        ("seed", np.int64),
        ("cuts", np.bool_),
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
        seed = params.seed - 2**64 if params.seed >= 2**63 else params.seed  # the same bits
        cuts = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        values = (params.temperature, params.top_k, params.top_p, params.min_p, seed, cuts)
        self._rows[slot] = values
        return slot

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)

    def batch(self, slots: Sequence[int], positions: Sequence[int]) -> SamplingBatch:
        """Parameters of samples: for each its request's slot, and its position."""
        rows = self._rows[np.asarray(slots, np.int64)]
        temperature = rows["temperature"].copy()
        return SamplingBatch(
            temperature_B=torch.from_numpy(temperature),
            top_k_B=torch.from_numpy(rows["top_k"].copy()),
            top_p_B=torch.from_numpy(rows["top_p"].copy()),
            min_p_B=torch.from_numpy(rows["min_p"].copy()),
            seeds_B=torch.from_numpy(rows["seed"].copy()),
            positions_B=torch.tensor(positions, dtype=torch.int64),
            all_greedy=not temperature.any(),
            no_cuts=not rows["cuts"].any(),
        )
