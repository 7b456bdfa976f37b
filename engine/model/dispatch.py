"""How tokens travel to their experts and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.api import KernelSet, Permutation


@dataclass(slots=True)
class DispatchHandle:
    """The permutation and the routing weights of one dispatch; dispatchers may add to it."""

    permutation: Permutation
    weights_TK: Tensor


@dataclass(slots=True)
class Dispatched:
    """Rows for the local experts, sorted by expert.

    Attributes:
        counts: rows of each local expert, int64, on the host or on the device of the rows.
        handle: what `combine` needs to undo the dispatch.
    """

    x_RD: Tensor
    counts: Tensor
    handle: DispatchHandle


class TokenDispatcher(Protocol):
    """Moves token rows to the ranks of their experts (section 3.2.2), and sums what comes back."""

    @property
    def expert_ids(self) -> Sequence[int]:
        """The experts that are here, in the order of the stacked weights and of `counts`."""
        ...

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """Rows grouped by local expert."""
        ...

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """Weighted sum for each token, in routing order: [T, D]."""
        ...


MakeDispatcher = Callable[[int], TokenDispatcher]
"""Makes the dispatcher of a layer, given by its number (the MTP layer's is the last)."""


class LocalDispatcher:
    """Every expert is here: a permutation."""

    def __init__(self, kernels: KernelSet, num_experts: int) -> None:
        self._kernels = kernels
        self.expert_ids = range(num_experts)

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """See `TokenDispatcher.dispatch`."""
        x_RD, permutation = self._kernels.permute(x_TD, ids_TK, len(self.expert_ids))
        return Dispatched(x_RD, permutation.counts, DispatchHandle(permutation, weights_TK))

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """See `TokenDispatcher.combine`."""
        return self._kernels.unpermute(y_RD, handle.permutation, handle.weights_TK)


def local_dispatchers(kernels: KernelSet, num_experts: int) -> MakeDispatcher:
    """Every expert of every layer is here."""
    return lambda layer: LocalDispatcher(kernels, num_experts)
