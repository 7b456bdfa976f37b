"""How a unit of ranks shares a model: the sizes that the command line takes."""

from dataclasses import dataclass

from leadline.engine.parallel.layout import ParallelLayout
from leadline.loader.model_config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Parallel sizes of a unit, one rank a GPU.

    Attributes:
        tensor_parallel_size: ranks that share heads, dense MLPs and vocabulary.
        data_parallel_size: groups of such ranks, each with requests and a latent cache of its own.
        expert_parallel: experts are placed whole, over all ranks; else each rank holds a slice of
            every expert.
        num_redundant_experts: replicas beyond one of each expert.
        ranks_per_node: GPUs of a node.
    """

    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    expert_parallel: bool = False
    num_redundant_experts: int = 0
    ranks_per_node: int = 8

    @property
    def num_ranks(self) -> int:
        """Ranks of the unit."""
        return self.tensor_parallel_size * self.data_parallel_size

    @property
    def num_nodes(self) -> int:
        """Nodes that the ranks take."""
        return -(-self.num_ranks // self.ranks_per_node)

    @property
    def expert_ranks(self) -> int:
        """Ranks that share the experts by whole ones; 1 without expert parallelism."""
        return self.num_ranks if self.expert_parallel else 1

    def parallel(self) -> ParallelLayout:
        """The same as the engine has it."""
        return ParallelLayout(
            tp_size=self.tensor_parallel_size,
            dp_size=self.data_parallel_size,
            expert_parallel=self.expert_parallel,
        )

    def experts_per_rank(self, model: ModelConfig) -> int:
        """Most experts, replicas included, that a rank holds of a layer."""
        return -(-(model.n_routed_experts + self.num_redundant_experts) // self.expert_ranks)

    def __str__(self) -> str:
        parts = [f"TP {self.tensor_parallel_size}", f"DP {self.data_parallel_size}"]
        if self.expert_parallel:
            parts.append(f"EP {self.expert_ranks}")
        return ", ".join(parts)
