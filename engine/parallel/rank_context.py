"""One rank of a unit: its groups, its share of the weights, and the way to its experts."""

from dataclasses import dataclass, field

from leadline.engine.expert_balance.expert_map import initial_map
from leadline.engine.expert_balance.placement import ExpertLayout
from leadline.engine.model.dispatch import MakeDispatcher
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.expert_dispatch import ExpertParallelDispatcher
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.parallel.payload import Payload
from leadline.engine.parallel.placement import ExpertPlacement, LinearPlacement
from leadline.engine.parallel.replicas import ReplicaPlacement
from leadline.engine.parallel.sliced_dispatch import SlicedDispatcher
from leadline.kernels.api import KernelSet
from leadline.loader.model_config import ModelConfig
from leadline.loader.sharding import ShardPlan


@dataclass(frozen=True, slots=True)
class RankContext:
    """A rank; as it is by default, the only one.

    Attributes:
        rank: its number in the layout.
        parallel: its groups, joined.
        num_redundant_experts: of each layer, beyond one of each.
        num_nodes: that the ranks are on, as many on each.
    """

    layout: ParallelLayout = field(default_factory=ParallelLayout)
    rank: int = 0
    parallel: ParallelContext = field(default_factory=ParallelContext)
    num_redundant_experts: int = 0
    num_nodes: int = 1

    def shard_plan(self, config: ModelConfig) -> ShardPlan:
        """What it reads of a checkpoint."""
        layout = self.layout
        tp_rank, tp_size = layout.tp_rank(self.rank), layout.tp_size
        if layout.expert_parallel:
            expert_ids = tuple(self._placement(config).expert_ids(self.rank))
            return ShardPlan(tp_rank, tp_size, expert_ids)
        return ShardPlan(
            tp_rank, tp_size, expert_slice=self.rank, num_expert_slices=layout.num_ranks
        )

    def make_exchange(
        self, kernels: KernelSet, *, exact: bool, fp8_dispatch: bool
    ) -> ExpertExchange | None:
        """What its dispatchers share; None where all experts are here."""
        if self.layout.num_ranks == 1:
            return None
        payload = Payload(kernels, is_fp8=fp8_dispatch)
        return ExpertExchange(self.parallel, kernels, payload, exact=exact)

    def dispatchers(
        self, exchange: ExpertExchange | None, config: ModelConfig
    ) -> MakeDispatcher | None:
        """How each layer's tokens travel; None where all experts are here."""
        if exchange is None:
            return None
        if not self.layout.expert_parallel:
            return lambda layer: SlicedDispatcher(exchange, config.n_routed_experts)
        return lambda layer: ExpertParallelDispatcher(exchange, self._placement(config))

    def expert_layout(self, config: ModelConfig) -> ExpertLayout | None:
        """Where experts may be placed; None where they stay where they are.

        They stay if some rank would have fewer than the others, or if there is one rank.
        """
        layout, num_experts = self.layout, config.n_routed_experts
        if layout.num_ranks == 1 or not layout.expert_parallel:
            return None
        if (num_experts + self.num_redundant_experts) % layout.num_ranks:
            return None
        return ExpertLayout(
            num_experts=num_experts,
            num_ranks=layout.num_ranks,
            num_redundant=self.num_redundant_experts,
            num_nodes=self.num_nodes,
            num_groups=config.n_group,
        )

    def _placement(self, config: ModelConfig) -> ExpertPlacement:
        layout = self.expert_layout(config)
        if layout is None:
            return LinearPlacement(config.n_routed_experts, self.layout.num_ranks)
        return ReplicaPlacement(
            initial_map(layout.num_experts, layout.num_ranks, layout.num_redundant)
        )
