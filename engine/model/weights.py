"""The parameters of a model as a tree, and how the checkpoint's tensors become it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from leadline.kernels.attention import MLAProjection
from leadline.kernels.parameters import (
    AttentionWeights,
    DenseWeights,
    LayerWeights,
    MoEWeights,
    Weight,
)
from leadline.kernels.types import QuantTensor
from leadline.loader.model_config import ModelConfig

Tensors = Mapping[str, Weight]

BLOCK = 128


@dataclass(slots=True)
class MTPWeights:
    """The multi-token prediction layer (DeepSeek-V3, section 2.2)."""

    embed_tokens: Tensor
    enorm: Tensor
    hnorm: Tensor
    eh_proj: Weight
    layer: LayerWeights
    norm: Tensor
    head: Tensor


@dataclass(slots=True)
class ModelWeights:
    """Everything; `mtp` is None where the checkpoint has no such layer."""

    embed_tokens: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    lm_head: Tensor
    mtp: MTPWeights | None


def _dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    return weight.dequantize(dtype) if isinstance(weight, QuantTensor) else weight


def _activation_dtype(tensors: Tensors) -> torch.dtype:
    """What FP8 weights become where they cannot stay: the residual stream's dtype."""
    return _plain(tensors, "model.embed_tokens.weight").dtype


def _plain(tensors: Tensors, name: str) -> Tensor:
    weight = tensors[name]
    assert isinstance(weight, Tensor), f"{name} is never stored in FP8"
    return weight


def _concat_rows(parts: list[Weight], dtype: torch.dtype) -> Weight:
    """Rows of all parts below each other; FP8 is kept where every part ends on a block border."""
    quantised = [part for part in parts if isinstance(part, QuantTensor)]
    aligned = all(p.row_offset == 0 and p.shape[0] % BLOCK == 0 for p in quantised)
    if len(quantised) == len(parts) and aligned:
        data = torch.cat([p.data.view(torch.uint8) for p in quantised])
        scale = torch.cat([p.scale for p in quantised])
        return QuantTensor(data.view(torch.float8_e4m3fn), scale, 0, quantised[0].col_offset)
    return torch.cat([_dense(part, dtype) for part in parts])


def _stack(parts: list[Weight], dtype: torch.dtype) -> Weight:
    """[E, rows, columns] of the experts' weights."""
    quantised = [part for part in parts if isinstance(part, QuantTensor)]
    if len(quantised) == len(parts):
        data = torch.stack([p.data.view(torch.uint8) for p in quantised])
        scale = torch.stack([p.scale for p in quantised])
        first = quantised[0]
        fp8 = data.view(torch.float8_e4m3fn)
        return QuantTensor(fp8, scale, first.row_offset, first.col_offset)
    return torch.stack([_dense(part, dtype) for part in parts])


def _attention(tensors: Tensors, prefix: str, config: ModelConfig) -> AttentionWeights:
    kv_b = _dense(tensors[f"{prefix}.kv_b_proj.weight"], _activation_dtype(tensors))
    nope, value = config.qk_nope_head_dim, config.v_head_dim
    w_uk, w_uv = kv_b.unflatten(0, (-1, nope + value)).split([nope, value], dim=1)
    compressed = config.q_lora_rank is not None
    q_name = "q_b_proj" if compressed else "q_proj"
    return AttentionWeights(
        q_a_proj=tensors[f"{prefix}.q_a_proj.weight"] if compressed else None,
        q_a_layernorm=_plain(tensors, f"{prefix}.q_a_layernorm.weight") if compressed else None,
        q_b_proj=tensors[f"{prefix}.{q_name}.weight"],
        kv_a_proj_with_mqa=tensors[f"{prefix}.kv_a_proj_with_mqa.weight"],
        kv_a_layernorm=_plain(tensors, f"{prefix}.kv_a_layernorm.weight"),
        kv_b=MLAProjection(w_uk.contiguous(), w_uv.contiguous()),
        o_proj=tensors[f"{prefix}.o_proj.weight"],
    )


def _gate_up(tensors: Tensors, prefix: str) -> Weight:
    parts = [tensors[f"{prefix}.{part}_proj.weight"] for part in ("gate", "up")]
    return _concat_rows(parts, _activation_dtype(tensors))


def _stack_gate_up(tensors: Tensors, experts: list[str], dtype: torch.dtype) -> Weight:
    """[E, 2F, D] of all experts, copied once."""
    parts = [
        tensors[f"{expert}.{part}_proj.weight"] for expert in experts for part in ("gate", "up")
    ]
    rows = _concat_rows(parts, dtype)
    if not isinstance(rows, QuantTensor):
        dense: Tensor = rows.unflatten(0, (len(experts), -1))
        return dense
    data, scale = (part.unflatten(0, (len(experts), -1)) for part in (rows.data, rows.scale))
    return QuantTensor(data, scale, rows.row_offset, rows.col_offset)


def _mlp(tensors: Tensors, prefix: str) -> DenseWeights:
    return DenseWeights(_gate_up(tensors, prefix), tensors[f"{prefix}.down_proj.weight"])


def _moe(tensors: Tensors, prefix: str, config: ModelConfig) -> MoEWeights:
    experts = [f"{prefix}.experts.{i}" for i in range(config.n_routed_experts)]
    experts = [name for name in experts if f"{name}.down_proj.weight" in tensors]  # those here
    dtype = _activation_dtype(tensors)
    bias_name = f"{prefix}.gate.e_score_correction_bias"
    return MoEWeights(
        gate=_plain(tensors, f"{prefix}.gate.weight").float(),
        e_score_correction_bias=_plain(tensors, bias_name) if config.has_correction_bias else None,
        gate_up_E2FD=_stack_gate_up(tensors, experts, dtype),
        down_EDF=_stack([tensors[f"{expert}.down_proj.weight"] for expert in experts], dtype),
        shared_experts=_mlp(tensors, f"{prefix}.shared_experts")
        if config.n_shared_experts
        else None,
    )


def assemble_layer(
    tensors: Tensors, prefix: str, config: ModelConfig, *, is_moe: bool
) -> LayerWeights:
    """One layer from the checkpoint's names under `prefix`."""
    mlp = f"{prefix}.mlp"
    return LayerWeights(
        input_layernorm=_plain(tensors, f"{prefix}.input_layernorm.weight"),
        self_attn=_attention(tensors, f"{prefix}.self_attn", config),
        post_attention_layernorm=_plain(tensors, f"{prefix}.post_attention_layernorm.weight"),
        mlp=_moe(tensors, mlp, config) if is_moe else _mlp(tensors, mlp),
    )


def _mtp(tensors: Tensors, config: ModelConfig, embed: Tensor, head: Tensor) -> MTPWeights:
    index = config.num_hidden_layers
    prefix = f"model.layers.{index}"
    own_embed, own_head = f"{prefix}.embed_tokens.weight", f"{prefix}.shared_head.head.weight"
    return MTPWeights(
        embed_tokens=_plain(tensors, own_embed) if own_embed in tensors else embed,
        enorm=_plain(tensors, f"{prefix}.enorm.weight"),
        hnorm=_plain(tensors, f"{prefix}.hnorm.weight"),
        eh_proj=tensors[f"{prefix}.eh_proj.weight"],
        layer=assemble_layer(tensors, prefix, config, is_moe=config.is_moe_layer(index)),
        norm=_plain(tensors, f"{prefix}.shared_head.norm.weight"),
        head=_plain(tensors, own_head) if own_head in tensors else head,
    )


def assemble(tensors: Tensors, config: ModelConfig, *, has_mtp: bool) -> ModelWeights:
    """The whole model from loaded tensors (names as in the checkpoint)."""
    embed = _plain(tensors, "model.embed_tokens.weight")
    head = embed if config.tie_word_embeddings else _plain(tensors, "lm_head.weight")
    layers = [
        assemble_layer(tensors, f"model.layers.{i}", config, is_moe=config.is_moe_layer(i))
        for i in range(config.num_hidden_layers)
    ]
    mtp = _mtp(tensors, config, embed, head) if has_mtp else None
    return ModelWeights(embed, layers, _plain(tensors, "model.norm.weight"), head, mtp)


def storage_bytes(tree: Any) -> int:
    """Memory behind the tensors of a tree of dataclasses and lists; what they share counts once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in _tensors(tree)}
    return sum(storage.nbytes() for storage in storages.values())


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list):
        for item in tree:
            yield from _tensors(item)
    elif is_dataclass(tree):
        for field in fields(tree):
            yield from _tensors(getattr(tree, field.name))
