"""What all ranks of a unit have to know of each other before a step: one small collective.

A layer with experts is a collective operation, so every rank passes as many of them as the rank
with the most to do, with no tokens of its own if need be.
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from leadline.engine.parallel.collectives import Collectives
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.parallel.exchange import ExpertExchange


@dataclass(frozen=True, slots=True)
class StepSizes:
    """Of one step; the largest of all data parallel ranks, where there are several.

    Attributes:
        num_tokens: that the main model computes; 0 if the layers need not be passed at all.
        num_draft_rows: requests that want drafts.
        num_passes: of the MTP layer that every rank takes part in.
    """

    num_tokens: int
    num_draft_rows: int
    num_passes: int


class Lockstep(Protocol):
    """Lets a rank know what the others are about to do."""

    def agree(self, own: StepSizes) -> StepSizes:
        """Before the main model's layers."""
        ...

    def begin_drafts(self, sizes: StepSizes) -> None:
        """Before the passes of the MTP layer."""
        ...

    def take_counts(self) -> DispatchCounts | None:
        """What dispatching has cost since the last call; None if there is none."""
        ...


class AloneInStep:
    """No other rank has requests of its own."""

    def agree(self, own: StepSizes) -> StepSizes:
        """Nobody waits: a rank without work need not take part in anything."""
        return StepSizes(0, 0, 0)

    def begin_drafts(self, sizes: StepSizes) -> None:
        """Nothing to tell."""

    def take_counts(self) -> DispatchCounts | None:
        """See `Lockstep.take_counts`."""
        return None


class InStep:
    """Several data parallel ranks, whose experts have all tokens."""

    def __init__(self, dp: Collectives, exchange: ExpertExchange) -> None:
        self._dp = dp
        self._exchange = exchange

    def agree(self, own: StepSizes) -> StepSizes:
        """See `Lockstep.agree`."""
        if self._dp.size == 1:  # those that share the requests do the same anyhow
            self._exchange.plan(own.num_tokens)
            return StepSizes(0, own.num_draft_rows, 0)
        sizes = torch.tensor([[own.num_tokens, own.num_draft_rows, own.num_passes]])
        most = StepSizes(*self._dp.all_gather(sizes, 0).amax(0).tolist())
        self._exchange.plan(most.num_tokens)
        return most

    def begin_drafts(self, sizes: StepSizes) -> None:
        """See `Lockstep.begin_drafts`."""
        self._exchange.plan(sizes.num_draft_rows)

    def take_counts(self) -> DispatchCounts | None:
        """See `Lockstep.take_counts`."""
        return self._exchange.meter.take()
