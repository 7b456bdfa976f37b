"""Collective operations of one group of ranks."""

from typing import Protocol

from torch import Tensor


class Collectives(Protocol):
    """What a layer may ask of its group.

    Attributes:
        rank: this process's index in the group, 0 <= rank < size.
        size: number of ranks.
    """

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over the ranks; every rank gets it. May reuse the storage of x."""
        ...

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        """Concatenation over the ranks along `dim`, in rank order."""
        ...


class SoloCollectives:
    """A group of one: every operation returns its input."""

    rank = 0
    size = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        """Returns x."""
        return x
