"""Collective operations of one group of ranks."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Collectives(Protocol):
    """What a layer may ask of its group.

    All ranks of the group call the same operations in the same order, with the same dtypes. Where a
    shape may differ between ranks, the operation says so.

    Attributes:
        rank: this process's index in the group, 0 <= rank < size.
        size: number of ranks.
    """

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """Sum over the ranks; every rank gets it, bit by bit the same. May reuse x's storage."""
        ...

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        """Concatenation over the ranks along `dim`, in rank order."""
        ...

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """Of the sum over the ranks, rows [rank * n, (rank + 1) * n): x has size * n rows."""
        ...

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Rows to each rank, and theirs from it, in rank order; counts may be 0 and may differ.

        Args:
            x: the rows for rank 0, then those for rank 1, ...
            send: how many rows of x go to each rank.
            receive: how many come from each rank.
        """
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

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """Returns x."""
        return x
