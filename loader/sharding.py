"""Which slice of each tensor a rank needs."""

import re
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


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A rank's share: tensor parallelism cuts matrices, expert parallelism places experts whole.

    Attributes:
        expert_ids: routed experts of this rank; None for all.
    """

    tp_rank: int = 0
    tp_size: int = 1
    expert_ids: tuple[int, ...] | None = None

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
        unknown = [e for e in self.expert_ids or () if not 0 <= e < config.n_routed_experts]
        if unknown:
            raise ShardingError(
                f"experts {unknown} do not exist; allowed: 0 to {config.n_routed_experts - 1}"
            )

    def slices(self, name: str, shape: tuple[int, ...]) -> Slices | None:
        """The part of a tensor that this rank needs; None if it needs nothing of it."""
        expert = _EXPERT.search(name)
        if expert is not None:
            needed = self.expert_ids is None or int(expert[1]) in self.expert_ids
            return _whole(shape) if needed else None
        if _HEAD_ROWS.search(name) or _WIDTH_ROWS.search(name) or _VOCABULARY.search(name):
            return (self._cut(shape[0]), *_whole(shape[1:]))
        if _HEAD_COLUMNS.search(name) or _WIDTH_COLUMNS.search(name):
            return (*_whole(shape[:1]), self._cut(shape[1]))
        return _whole(shape)

    def _cut(self, size: int) -> slice:
        width = size // self.tp_size
        return slice(self.tp_rank * width, (self.tp_rank + 1) * width)


def _whole(shape: tuple[int, ...]) -> Slices:
    return tuple(slice(0, size) for size in shape)


def scale_slices(slices: Slices) -> tuple[Slices, tuple[int, ...]]:
    """The blocks that a slice of an FP8 weight touches, and its offset inside the first of them.

    A cut inside a block is legal: the shard keeps the scale of every block it touches.
    """
    blocks = tuple(slice(s.start // BLOCK, -(-s.stop // BLOCK)) for s in slices)
    return blocks, tuple(s.start % BLOCK for s in slices)
