"""Fresh parameters for the built-in model, and walks over the parameter tree."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from leadline.engine.model.weights import ModelWeights, MTPWeights, assemble
from leadline.kernels.attention import MLAProjection
from leadline.kernels.parameters import (
    AttentionWeights,
    DenseWeights,
    LayerWeights,
    MoEWeights,
)
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import ModelConfig

EMBEDDING_STD = 0.1


class Initializer:
    """Draws parameters whose products keep unit scale; `depth` damps what joins the residual."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._config = config
        self._generator = torch.Generator().manual_seed(seed)
        self._damping = 1 / math.sqrt(2 * config.num_hidden_layers)

    def model(self) -> ModelWeights:
        """The whole tree, float32, every leaf a trainable tensor but the correction bias."""
        config = self._config
        embed = self._normal(EMBEDDING_STD, config.vocab_size, config.hidden_size)
        head = self._matrix(config.vocab_size, config.hidden_size)
        layers = [self._layer(i) for i in range(config.num_hidden_layers)]
        mtp = MTPWeights(
            embed_tokens=embed,
            enorm=self._ones(config.hidden_size),
            hnorm=self._ones(config.hidden_size),
            eh_proj=self._matrix(config.hidden_size, 2 * config.hidden_size),
            layer=self._layer(config.num_hidden_layers),
            norm=self._ones(config.hidden_size),
            head=head,
        )
        return ModelWeights(embed, layers, self._ones(config.hidden_size), head, mtp)

    def _normal(self, std: float, *shape: int) -> Tensor:
        return (torch.randn(shape, generator=self._generator) * std).requires_grad_()

    def _matrix(self, *shape: int, gain: float = 1.0) -> Tensor:
        return self._normal(gain / math.sqrt(shape[-1]), *shape)

    def _ones(self, size: int) -> Tensor:
        return torch.ones(size).requires_grad_()

    def _layer(self, index: int) -> LayerWeights:
        config = self._config
        mlp = self._moe() if config.is_moe_layer(index) else self._mlp(config.intermediate_size)
        return LayerWeights(
            self._ones(config.hidden_size), self._attention(), self._ones(config.hidden_size), mlp
        )

    def _attention(self) -> AttentionWeights:
        config = self._config
        heads, hidden, latent = (
            config.num_attention_heads,
            config.hidden_size,
            config.kv_lora_rank,
        )
        assert config.q_lora_rank is not None
        values = heads * config.v_head_dim
        return AttentionWeights(
            q_a_proj=self._matrix(config.q_lora_rank, hidden),
            q_a_layernorm=self._ones(config.q_lora_rank),
            q_b_proj=self._matrix(heads * config.qk_head_dim, config.q_lora_rank),
            kv_a_proj_with_mqa=self._matrix(latent + config.qk_rope_head_dim, hidden),
            kv_a_layernorm=self._ones(latent),
            kv_b=MLAProjection(
                self._matrix(heads, config.qk_nope_head_dim, latent),
                self._matrix(heads, config.v_head_dim, latent),
            ),
            o_proj=self._matrix(hidden, values, gain=self._damping),
        )

    def _mlp(self, width: int) -> DenseWeights:
        hidden = self._config.hidden_size
        gate_up = self._matrix(2 * width, hidden)
        return DenseWeights(gate_up, self._matrix(hidden, width, gain=self._damping))

    def _moe(self) -> MoEWeights:
        config = self._config
        experts, width, hidden = (
            config.n_routed_experts,
            config.moe_intermediate_size,
            config.hidden_size,
        )
        return MoEWeights(
            gate=self._matrix(experts, hidden),
            e_score_correction_bias=torch.zeros(experts),
            gate_up_E2FD=self._matrix(experts, 2 * width, hidden),
            down_EDF=self._matrix(experts, hidden, width, gain=self._damping),
            shared_experts=self._mlp(width * config.n_shared_experts),
        )


def named_leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(dotted name, tensor) of every tensor of a tree of dataclasses and lists."""
    if isinstance(tree, Tensor):
        yield prefix, tree
    elif isinstance(tree, list):
        for i, item in enumerate(tree):
            yield from named_leaves(item, f"{prefix}.{i}")
    elif is_dataclass(tree):
        for field in fields(tree):
            yield from named_leaves(getattr(tree, field.name), f"{prefix}.{field.name}".strip("."))


def _distinct(weights: ModelWeights) -> dict[str, Tensor]:
    """Every tensor by name, those that the MTP layer shares with the main model once."""
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named_leaves(weights):
        named.setdefault(id(tensor), (name, tensor))
    return dict(named.values())


def trainable(weights: ModelWeights) -> dict[str, Tensor]:
    """Every distinct parameter by name, without the correction biases."""
    return {name: t for name, t in _distinct(weights).items() if t.requires_grad}


def save_parameters(weights: ModelWeights, path: Path) -> None:
    """Write all parameters, float32, to a safetensors file."""
    save_file({name: tensor.detach() for name, tensor in _distinct(weights).items()}, path)


def load_parameters(weights: ModelWeights, path: Path) -> None:
    """Fill a tree of the same shape from `save_parameters`' file."""
    stored = load_file(path)
    with torch.no_grad():
        for name, tensor in _distinct(weights).items():
            tensor.copy_(stored[name])


def read_export(directory: Path, config: ModelConfig) -> ModelWeights:
    """The weights of an exported checkpoint, dequantised to float32."""
    loaded = load_weights(Checkpoint.open(directory), config, dtype=torch.float32, dequantize=True)
    return assemble(loaded.tensors, config, has_mtp=loaded.has_mtp)


def copy_parameters(target: ModelWeights, source: ModelWeights) -> None:
    """Fill a tree from another one of the same shape."""
    stored = _distinct(source)
    with torch.no_grad():
        for name, tensor in _distinct(target).items():
            tensor.copy_(stored[name])


def correction_biases(weights: ModelWeights) -> list[Tensor]:
    """The router's biases in the order in which the layers route, the MTP layer last."""
    assert weights.mtp is not None
    layers = [*weights.layers, weights.mtp.layer]
    biases = [layer.mlp.e_score_correction_bias for layer in layers if _is_moe(layer)]
    return [bias for bias in biases if bias is not None]


def _is_moe(layer: LayerWeights) -> bool:
    return isinstance(layer.mlp, MoEWeights)
