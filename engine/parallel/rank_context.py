"""One rank of a unit: its groups, its share of the weights, and the way to its experts."""

from dataclasses import dataclass, field

from leadline.engine.model.dispatch import MakeDispatcher
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.expert_dispatch import ExpertParallelDispatcher
from leadline.engine.parallel.layout import ParallelLayout
from leadline.engine.parallel.payload import Payload
from leadline.engine.parallel.placement import LinearPlacement
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
    """

    layout: ParallelLayout = field(default_factory=ParallelLayout)
    rank: int = 0
    parallel: ParallelContext = field(default_factory=ParallelContext)

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
        placement = self._placement(config)
        return lambda layer: ExpertParallelDispatcher(exchange, placement)

    def _placement(self, config: ModelConfig) -> LinearPlacement:
        return LinearPlacement(config.n_routed_experts, self.layout.num_ranks)
