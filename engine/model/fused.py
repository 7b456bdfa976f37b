"""Layers as one operation, where the kernels have it and every weight is here."""

from collections.abc import Sequence

from torch import Tensor

from leadline.engine.model.attention import LATENT_NORM_EPS
from leadline.engine.model.dispatch import LocalDispatcher
from leadline.engine.model.experts import LocalExperts
from leadline.engine.model.layer import DecoderLayer
from leadline.engine.model.mlp import MoE, router_config
from leadline.engine.model.rope import RopeTable, softmax_scale
from leadline.engine.model.weights import MTPWeights
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet
from leadline.kernels.decoder import DecoderStack, FusedLayers, FusedMTP, PairingWeights
from leadline.loader.model_config import ModelConfig


def fuse_layers(
    config: ModelConfig,
    layers: Sequence[DecoderLayer],
    norm: Tensor,
    kernels: KernelSet,
    parallel: ParallelContext,
    rope: RopeTable,
) -> FusedLayers | None:
    """The model's layers and the norm after them; None where they are to be run one by one."""
    if not _are_here(layers, parallel):
        return None
    return kernels.fuse_layers(_stack(config, layers, norm, rope))


def fuse_mtp(
    config: ModelConfig,
    layer: DecoderLayer,
    weights: MTPWeights,
    kernels: KernelSet,
    parallel: ParallelContext,
    rope: RopeTable,
    *,
    first_slot: int,
) -> FusedMTP | None:
    """The MTP layer; None where it is to be run operation by operation."""
    if not _are_here([layer], parallel):
        return None
    stack = _stack(config, [layer], weights.norm, rope)
    stack.first_layer, stack.first_slot = config.num_hidden_layers, first_slot
    pairing = PairingWeights(
        weights.embed_tokens, weights.enorm, weights.hnorm, weights.eh_proj, weights.head
    )
    return kernels.fuse_mtp(stack, pairing)


def _are_here(layers: Sequence[DecoderLayer], parallel: ParallelContext) -> bool:
    blocks = [layer.mlp for layer in layers if isinstance(layer.mlp, MoE)]
    has_experts = all(
        isinstance(block.dispatcher, LocalDispatcher) and isinstance(block.experts, LocalExperts)
        for block in blocks
    )
    return has_experts and parallel.tp.size == 1


def _stack(
    config: ModelConfig, layers: Sequence[DecoderLayer], norm: Tensor, rope: RopeTable
) -> DecoderStack:
    return DecoderStack(
        layers=[layer.weights for layer in layers],
        norm=norm,
        router=router_config(config),
        num_chosen=[
            layer.mlp.num_chosen_E if isinstance(layer.mlp, MoE) else None for layer in layers
        ],
        first_layer=0,
        first_slot=0,
        eps=config.rms_norm_eps,
        latent_eps=LATENT_NORM_EPS,
        scale=softmax_scale(config),
        cos=rope.cos,
        sin=rope.sin,
    )
