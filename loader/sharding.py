"""Which slice of each tensor a rank needs."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from leadline.kernels.types import BLOCK
from leadline.loader.errors import ShardingError
from leadline.loader.model_config import ModelConfig

Slices = tuple[slice, ...]

_HEAD_ROWS = re.compile(r"self_attn\.(q_proj|q_b_proj|kv_b_proj)\.weight$")
_HEAD_COLUMNS = re.compile(r"self_attn\.o_proj\.weight$")
_WIDTH_ROWS = re.compile(r"mlp\.(shared_experts\.)?(gate|up)_proj\.weight$")
_WIDTH_COLUMNS = re.compile(r"mlp\.(shared_experts\.)?down_proj\.weight$")
_VOCABULARY = re.compile(r"(embed_tokens|lm_head|shared_head\.head)\.weight$")
_EXPERT = re.compile(r"\.mlp\.experts\.(\d+)\.")


def is_routed_expert(name: str) -> bool:
    """Whether a tensor of this name belongs to a routed expert."""
    return _EXPERT.search(name) is not None


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A rank's share: tensor parallelism cuts matrices, expert parallelism places experts whole.

    Attributes:
        expert_ids: routed experts of this rank; None for all.
        expert_slice: its slice of each of them, which are cut by width.
        num_expert_slices: how many there are; 1 for whole experts.
    """

    tp_rank: int = 0
    tp_size: int = 1
    expert_ids: tuple[int, ...] | None = None
    expert_slice: int = 0
    num_expert_slices: int = 1

    @classmethod
    def solo(cls) -> "ShardPlan":
        """Everything."""
        return cls()

    def check(self, config: ModelConfig) -> None:
        """Refuse a layout that the model's sizes do not allow.

        Raises:
            ShardingError: with the sizes that do not divide.
        """
        if self.tp_size < 1 or not 0 <= self.tp_rank < self.tp_size:
            raise ShardingError(
                f"tensor parallel rank {self.tp_rank} of {self.tp_size} does not exist; "
                "allowed: 0 to size - 1"
            )
        sizes = {
            "num_attention_heads": config.num_attention_heads,
            "vocab_size": config.vocab_size,
            "intermediate_size": config.intermediate_size,
            "moe_intermediate_size x n_shared_experts": config.moe_intermediate_size
            * config.n_shared_experts,
        }
        wrong = [f"{name} = {size}" for name, size in sizes.items() if size % self.tp_size]
        if wrong:
            raise ShardingError(
                f"tensor parallel size {self.tp_size} does not divide {', '.join(wrong)}"
            )
        if not 0 <= self.expert_slice < self.num_expert_slices:
            raise ShardingError(
                f"slice {self.expert_slice} of {self.num_expert_slices} of the experts does not "
                "exist; allowed: 0 to slices - 1"
            )
        if config.n_routed_experts and config.moe_intermediate_size % self.num_expert_slices:
            raise ShardingError(
                f"{self.num_expert_slices} slices of the experts do not divide "
                f"moe_intermediate_size = {config.moe_intermediate_size}"
            )
        unknown = [e for e in self.expert_ids or () if not 0 <= e < config.n_routed_experts]
        if unknown:
            raise ShardingError(
                f"experts {unknown} do not exist; allowed: 0 to {config.n_routed_experts - 1}"
            )

    def slices(self, name: str, shape: tuple[int, ...]) -> Slices | None:
        """The part of a tensor that this rank needs; None if it needs nothing of it."""
        expert = _EXPERT.search(name)
        if expert is not None:
            if self.expert_ids is not None and int(expert[1]) not in self.expert_ids:
                return None
            cut = _cut(self.expert_slice, self.num_expert_slices)
            return _columns(shape, cut) if name.endswith("down_proj.weight") else _rows(shape, cut)
        cut = _cut(self.tp_rank, self.tp_size)
        if _HEAD_ROWS.search(name) or _WIDTH_ROWS.search(name) or _VOCABULARY.search(name):
            return _rows(shape, cut)
        if _HEAD_COLUMNS.search(name) or _WIDTH_COLUMNS.search(name):
            return _columns(shape, cut)
        return _whole(shape)


def _cut(index: int, num_parts: int) -> Callable[[int], slice]:
    """The index-th part of a size."""

    def cut(size: int) -> slice:
        width = size // num_parts
        return slice(index * width, (index + 1) * width)

    return cut


def _rows(shape: tuple[int, ...], cut: Callable[[int], slice]) -> Slices:
    return (cut(shape[0]), *_whole(shape[1:]))


def _columns(shape: tuple[int, ...], cut: Callable[[int], slice]) -> Slices:
    return (*_whole(shape[:1]), cut(shape[1]))


def _whole(shape: tuple[int, ...]) -> Slices:
    return tuple(slice(0, size) for size in shape)


def scale_slices(slices: Slices) -> tuple[Slices, tuple[int, ...]]:
    """The blocks that a slice of an FP8 weight touches, and its offset inside the first of them.

    A cut inside a block is legal: the shard keeps the scale of every block it touches.
    """
    blocks = tuple(slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in slices)
    return blocks, tuple(s.start % BLOCK for s in slices)
