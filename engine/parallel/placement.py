"""Which rank has which experts."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class ExpertPlacement(Protocol):
    """Experts in slots: slot s is the (s % slots_per_rank)-th of rank s // slots_per_rank.

    Attributes:
        slots_per_rank: as many on every rank; some may be empty.
    """

    slots_per_rank: int

    def expert_ids(self, rank: int) -> Sequence[int]:
        """The experts in the slots of a rank, in the order of its slots, without empty ones."""
        ...

    def choose(self, ids_TK: Tensor) -> Tensor:
        """A slot for each choice of an expert, int64 [T, K]."""
        ...


class LinearPlacement:
    """Each expert once, in order, as many on each rank; the last rank may have fewer."""

    def __init__(self, num_experts: int, num_ranks: int) -> None:
        self._num_experts = num_experts
        self.slots_per_rank = -(-num_experts // num_ranks)

    def expert_ids(self, rank: int) -> Sequence[int]:
        """See `ExpertPlacement.expert_ids`."""
        first = rank * self.slots_per_rank
        return range(first, min(first + self.slots_per_rank, self._num_experts))

    def choose(self, ids_TK: Tensor) -> Tensor:
        """Returns the ids: expert e lies in slot e."""
        return ids_TK
