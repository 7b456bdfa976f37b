"""Which physical slots hold which expert of a layer, as plain data."""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadline.engine.expert_balance.slots import slots_per_rank

EMPTY = -1
"""A slot that holds no expert: its rank is dead."""


class ExpertMap(msgspec.Struct, frozen=True):
    """Logical experts to physical slots, of one layer.

    Slot s lies on rank s // slots_per_rank. An expert may have several slots (replicas), never two
    on one rank.

    Attributes:
        num_experts: logical experts are 0..num_experts - 1.
        num_ranks: expert-parallel ranks.
        slots: the logical expert in each physical slot, or `EMPTY`.
    """

    num_experts: int
    num_ranks: int
    slots: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.slots) % self.num_ranks == 0, "uneven ranks"
        assert all(EMPTY <= expert < self.num_experts for expert in self.slots), "no such expert"
        for rank in range(self.num_ranks):
            experts = [expert for expert in self.on_rank(rank) if expert != EMPTY]
            assert len(set(experts)) == len(experts), f"two replicas on rank {rank}"

    @property
    def slots_per_rank(self) -> int:
        """Experts that a rank holds."""
        return len(self.slots) // self.num_ranks

    @property
    def is_complete(self) -> bool:
        """Whether every expert has a slot."""
        return len(set(self.slots) - {EMPTY}) == self.num_experts

    def on_rank(self, rank: int) -> tuple[int, ...]:
        """The experts in the slots of a rank, in the order of its slots."""
        width = self.slots_per_rank
        return self.slots[rank * width : (rank + 1) * width]

    def rank_of(self, slot: int) -> int:
        """Where a slot lies."""
        return slot // self.slots_per_rank

    def replicas(self) -> list[list[int]]:
        """The slots of each expert, ascending."""
        slots_of: list[list[int]] = [[] for _ in range(self.num_experts)]
        for slot, expert in enumerate(self.slots):
            if expert != EMPTY:
                slots_of[expert].append(slot)
        return slots_of

    def replica_table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Slots [E, most replicas], padded with an expert's first slot, and replicas [E].

        Every expert must have a slot.
        """
        assert self.is_complete, "an expert is nowhere"
        replicas = self.replicas()
        width = max(map(len, replicas))
        table = [slots + slots[:1] * (width - len(slots)) for slots in replicas]
        return np.array(table, np.int64), np.array([len(slots) for slots in replicas], np.int64)

    def without(self, dead_ranks: Collection[int]) -> "ExpertMap":
        """The map with the slots of these ranks empty; it may not be complete."""
        width = self.slots_per_rank
        slots = tuple(
            EMPTY if slot // width in dead_ranks else expert
            for slot, expert in enumerate(self.slots)
        )
        return ExpertMap(self.num_experts, self.num_ranks, slots)

    def rank_loads(self, expert_load: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """The load of each rank [ranks]; replicas share their expert's evenly."""
        slots = np.array(self.slots, np.int64)
        is_held = slots != EMPTY
        counts = np.bincount(slots[is_held], minlength=self.num_experts)
        shares = np.asarray(expert_load, np.float64) / np.maximum(counts, 1)
        slot_loads = np.where(is_held, shares[slots], 0.0)
        loads: NDArray[np.float64] = slot_loads.reshape(self.num_ranks, -1).sum(axis=1)
        return loads


def initial_map(num_experts: int, num_ranks: int, num_redundant: int = 0) -> ExpertMap:
    """Experts in order, and after them the first ones again as far as there is room.

    Each rank's are in order, as they are read from a checkpoint.

    Raises:
        ConfigError: see `slots_per_rank`.
    """
    width = slots_per_rank(num_experts, num_ranks, num_redundant)
    slots: list[int] = []
    for first in range(0, num_ranks * width, width):
        slots += sorted(slot % num_experts for slot in range(first, first + width))
    return ExpertMap(num_experts, num_ranks, tuple(slots))


def balancedness(rank_loads: NDArray[np.float64], dead_ranks: Collection[int] = ()) -> float:
    """Mean over largest load of the living ranks: 1 for a perfect balance, also without load."""
    alive = [load for rank, load in enumerate(rank_loads) if rank not in dead_ranks]
    peak = max(alive)
    return float(sum(alive) / len(alive) / peak) if peak > 0 else 1.0
