"""How tokens travel to their experts and back."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.api import KernelSet, Permutation


@dataclass(slots=True)
class Dispatched:
    """Rows for the local experts, sorted by expert.

    Attributes:
        counts: rows of each local expert, int64, on the host or on the device of the rows.
        handle: what `combine` needs to undo the dispatch.
    """

    x_RD: Tensor
    counts: Tensor
    handle: "DispatchHandle"


@dataclass(slots=True)
class DispatchHandle:
    """The permutation and the routing weights of one dispatch."""

    permutation: Permutation
    weights_TK: Tensor


class TokenDispatcher(Protocol):
    """Moves token rows to the ranks of their experts (section 3.2.2), and sums what comes back."""

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """Rows grouped by local expert."""
        ...

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """Weighted sum for each token, in routing order: [T, D]."""
        ...


class LocalDispatcher:
    """Every expert is here: a permutation."""

    def __init__(self, kernels: KernelSet, num_experts: int) -> None:
        self._kernels = kernels
        self._num_experts = num_experts

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """See `TokenDispatcher.dispatch`."""
        x_RD, permutation = self._kernels.permute(x_TD, ids_TK, self._num_experts)
        return Dispatched(x_RD, permutation.counts, DispatchHandle(permutation, weights_TK))

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """See `TokenDispatcher.combine`."""
        return self._kernels.unpermute(y_RD, handle.permutation, handle.weights_TK)
