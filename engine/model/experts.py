"""What computes the rows of a layer's routed experts."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from leadline.kernels.api import KernelSet
from leadline.kernels.parameters import MoEWeights

Pending = Callable[[], Tensor]
"""Waits for what has been begun, and returns it."""


class Experts(Protocol):
    """The routed experts of one layer, over rows that a dispatcher has sorted."""

    @property
    def num_bytes(self) -> int:
        """Memory of weights that it has beside the model's."""
        ...

    def begin(self, x_RD: Tensor, counts: Tensor) -> Pending:
        """Starts on rows, as `TokenDispatcher.dispatch` returns them; y_RD comes later."""
        ...


MakeExperts = Callable[[int, MoEWeights], Experts]
"""Makes the experts of a layer, given by its number (the MTP layer's is the last)."""


class LocalExperts:
    """All of them where the rows are."""

    num_bytes = 0

    def __init__(self, weights: MoEWeights, kernels: KernelSet) -> None:
        self._weights = weights
        self._kernels = kernels

    def begin(self, x_RD: Tensor, counts: Tensor) -> Pending:
        """See `Experts.begin`."""
        weights = self._weights
        y_RD = self._kernels.grouped_mlp(x_RD, counts, weights.gate_up_E2FD, weights.down_EDF)
        return lambda: y_RD


def local_experts(kernels: KernelSet) -> MakeExperts:
    """Every layer's experts are where its rows are."""
    return lambda layer, weights: LocalExperts(weights, kernels)
