"""The parallel layout as data that layers receive; no layer asks `torch.distributed`."""

from dataclasses import dataclass, field

from leadline.engine.parallel.collectives import Collectives, SoloCollectives


@dataclass(frozen=True, slots=True)
class ParallelContext:
    """The groups that a rank belongs to.

    Attributes:
        tp: ranks that share attention heads, dense MLPs and the vocabulary.
    """

    tp: Collectives = field(default_factory=SoloCollectives)
