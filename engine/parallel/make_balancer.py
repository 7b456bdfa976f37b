"""What keeps the experts of a rank's unit balanced."""

from leadline.engine.expert_balance.balancer import ExpertBalancer
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.parallel.expert_dispatch import ExpertParallelDispatcher
from leadline.engine.parallel.expert_mover import ExpertMover, MovableLayer
from leadline.engine.parallel.rank_context import RankContext
from leadline.engine.parallel.replicas import ReplicaPlacement
from leadline.loader.model_config import ModelConfig

ROUND_BYTES = 4 * 2**20  # that a rank sends or receives between two steps


def balancer_of(
    model: DeepseekModel, config: ModelConfig, rank: RankContext, window_steps: int
) -> ExpertBalancer | None:
    """The balancer of a rank; None where experts cannot move, or are not to.

    Args:
        model: its share.
        config: of the checkpoint.
        rank: of the unit.
        window_steps: steps whose load decides; 0 for no balancing.
    """
    layout = rank.expert_layout(config)
    if layout is None or not window_steps:
        return None
    layers = {}
    for number, moe in model.moe_layers().items():
        dispatcher = moe.dispatcher
        assert isinstance(dispatcher, ExpertParallelDispatcher), "experts lie on several ranks"
        placement = dispatcher.placement
        assert isinstance(placement, ReplicaPlacement), "experts have slots that divide evenly"
        layers[number] = MovableLayer(moe, dispatcher, placement)
    if not layers:
        return None
    mover = ExpertMover(rank.parallel.ep, layers)
    return ExpertBalancer(
        mover, layout, mover.maps, window_steps=window_steps, round_bytes=ROUND_BYTES
    )
