"""FP8 weights kept as they are mean the same as dequantised ones, however they are joined."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.model.weights import ModelWeights, assemble
from leadline.kernels.parameters import MoEWeights
from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import read_model_config
from leadline.loader.synthetic import tiny_v2_lite, tiny_v3, write_checkpoint

# gate and up of 160 and of 40 rows end within a block; those of 256 and of 128 end on one
SHAPES: dict[str, dict[str, Any]] = {
    "ragged": tiny_v3(),
    "aligned": tiny_v3() | {"intermediate_size": 256, "moe_intermediate_size": 128},
    "no-q-lora": tiny_v2_lite(),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    paths = {name: tmp_path_factory.mktemp(name) for name in SHAPES}
    for name, path in paths.items():
        write_checkpoint(path, SHAPES[name], fmt="fp8")
    return paths


def load(path: Path, dtype: torch.dtype, *, dequantize: bool) -> ModelWeights:
    config = read_model_config(path)
    weights = load_weights(Checkpoint.open(path), config, dtype=dtype, dequantize=dequantize)
    return assemble(weights.tensors, config, has_mtp=weights.has_mtp)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor of a tree of weights with its path."""
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{name}.{i}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, QuantTensor):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name), f"{name}.{field.name}")
    elif value is not None:
        yield name, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kept_equals_dequantised(shape: str, dtype: torch.dtype, paths: dict[str, Path]) -> None:
    kept = dict(leaves(load(paths[shape], dtype, dequantize=False)))
    dense = dict(leaves(load(paths[shape], dtype, dequantize=True)))
    assert kept.keys() == dense.keys()
    for name, expected in dense.items():
        actual = kept[name]
        if isinstance(actual, QuantTensor):
            actual = actual.dequantize(dtype)
        assert actual.dtype == expected.dtype, name
        assert torch.equal(actual, expected), name
    assert any(isinstance(value, QuantTensor) for value in kept.values())


@pytest.mark.parametrize(("shape", "is_kept"), [("ragged", False), ("aligned", True)])
def test_joined_weights_stay_fp8_where_blocks_allow(
    shape: str, is_kept: bool, paths: dict[str, Path]
) -> None:
    weights = load(paths[shape], torch.float32, dequantize=False)
    dense, experts = weights.layers[0].mlp, weights.layers[1].mlp
    assert isinstance(experts, MoEWeights)
    assert not isinstance(dense, MoEWeights)
    for joined in (dense.gate_up, experts.gate_up_E2FD):
        assert isinstance(joined, QuantTensor) == is_kept
    for single in (dense.down, experts.down_EDF, weights.layers[0].self_attn.o_proj):
        assert isinstance(single, QuantTensor)


def test_experts_and_halves_are_in_order(paths: dict[str, Path]) -> None:
    path = paths["aligned"]
    config = read_model_config(path)
    tensors = load_weights(Checkpoint.open(path), config, dtype=torch.float32, dequantize=True)
    experts = load(path, torch.float32, dequantize=False).layers[1].mlp
    assert isinstance(experts, MoEWeights)
    assert isinstance(experts.gate_up_E2FD, QuantTensor)
    stacked = experts.gate_up_E2FD.dequantize()
    for expert in range(config.n_routed_experts):
        gate, up = stacked[expert].chunk(2)
        prefix = f"model.layers.1.mlp.experts.{expert}"
        assert torch.equal(gate, tensors.tensors[f"{prefix}.gate_proj.weight"])
        assert torch.equal(up, tensors.tensors[f"{prefix}.up_proj.weight"])


def test_key_and_value_projections_are_cut_per_head(paths: dict[str, Path]) -> None:
    path = paths["ragged"]
    config = read_model_config(path)
    tensors = load_weights(Checkpoint.open(path), config, dtype=torch.float32, dequantize=True)
    kv_b = tensors.tensors["model.layers.2.self_attn.kv_b_proj.weight"]
    assert isinstance(kv_b, torch.Tensor)
    projection = load(path, torch.float32, dequantize=False).layers[2].self_attn.kv_b
    for head in range(config.num_attention_heads):
        begin = head * (16 + 24)
        assert torch.equal(projection.w_uk_HNC[head], kv_b[begin : begin + 16])
        assert torch.equal(projection.w_uv_HVC[head], kv_b[begin + 16 : begin + 40])


def test_mtp_layer_shares_embedding_and_head(paths: dict[str, Path]) -> None:
    weights = load(paths["ragged"], torch.float32, dequantize=False)
    assert weights.mtp is not None
    assert weights.mtp.embed_tokens is weights.embed_tokens
    assert weights.mtp.head is weights.lm_head
