"""What the dispatchers of all layers of a rank share, and how a step tells them of its size."""

from dataclasses import dataclass, field

from leadline.engine.parallel.context import ParallelContext
from leadline.engine.parallel.dispatch_meter import DispatchMeter
from leadline.engine.parallel.payload import Payload
from leadline.kernels.api import KernelSet

SMALL_BATCH = 64
"""Tokens a rank up to which each rank sends all of its tokens to all: one collective in place of
two, whose sizes are known without asking."""


@dataclass(slots=True)
class ExpertExchange:
    """One for each rank; `plan` comes before a step's layers.

    Attributes:
        exact: outputs travel one by one and are summed by the token's own rank in routing order, so
            that no bit depends on where experts lie; else ranks send sums.
        small_batch: most tokens a rank for the form that sends all to all.
        capacity: most tokens that any rank has in the layers that follow, the same on all ranks;
            None while nobody has said.
    """

    parallel: ParallelContext
    kernels: KernelSet
    payload: Payload
    exact: bool
    small_batch: int = SMALL_BATCH
    capacity: int | None = None
    meter: DispatchMeter = field(default_factory=DispatchMeter)

    def plan(self, capacity: int) -> None:
        """Prepare for layers with so many tokens at most on any rank."""
        self.capacity = capacity
