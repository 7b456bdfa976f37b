"""Layers as one operation, where the kernels have it and every weight is here."""

from collections.abc import Sequence

from torch import Tensor

from leadline.engine.model.attention import LATENT_NORM_EPS
from leadline.engine.model.dispatch import LocalDispatcher
from leadline.engine.model.experts import LocalExperts
from leadline.engine.model.layer import DecoderLayer
from leadline.engine.model.mlp import MoE, router_config
from leadline.engine.model.rope import RopeTable, softmax_scale
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.kernels.decoder import DecoderStack, FusedLayers
from leadline.loader.model_config import ModelConfig


def fuse(
    config: ModelConfig,
    layers: Sequence[DecoderLayer],
    norm: Tensor,
    kernels: KernelSet,
    parallel: ParallelContext,
    rope: RopeTable,
    *,
    first_layer: int = 0,
    first_slot: int = 0,
) -> FusedLayers | None:
    """Consecutive layers and the norm after them; None where they are to be run one by one.

    `first_layer` is the number of the first of them, `first_slot` that of their attention.
    """
    blocks = [layer.mlp for layer in layers if isinstance(layer.mlp, MoE)]
    all_here = all(
        isinstance(block.dispatcher, LocalDispatcher) and isinstance(block.experts, LocalExperts)
        for block in blocks
    )
    if parallel.tp.size > 1 or not all_here:
        return None
    return kernels.fuse_layers(
        DecoderStack(
            layers=[layer.weights for layer in layers],
            norm=norm,
            router=router_config(config),
            num_chosen=[
                layer.mlp.num_chosen_E if isinstance(layer.mlp, MoE) else None for layer in layers
            ],
            first_layer=first_layer,
            first_slot=first_slot,
            eps=config.rms_norm_eps,
            latent_eps=LATENT_NORM_EPS,
            scale=softmax_scale(config),
            cos=rope.cos,
            sin=rope.sin,
        )
    )
