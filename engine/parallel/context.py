"""The parallel layout as data that layers receive; no layer asks `torch.distributed`."""

from dataclasses import dataclass, field

from leadline.engine.parallel.collectives import Collectives, SoloCollectives


@dataclass(frozen=True, slots=True)
class ParallelContext:
    """The groups that a rank belongs to.

    Attributes:
        tp: ranks that share attention heads, dense MLPs and the vocabulary; all of them have the
            same tokens.
        dp: ranks with the same slices of the weights, each with tokens of its own.
        ep: ranks that share the experts: those of all tp and dp groups.
    """

    tp: Collectives = field(default_factory=SoloCollectives)
    dp: Collectives = field(default_factory=SoloCollectives)
    ep: Collectives = field(default_factory=SoloCollectives)
