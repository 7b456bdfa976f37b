"""An FP8 checkpoint against its dequantised twin, and what FP8 activations cost."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.build import load_model
from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.kernels.api import KernelSet, LinearFP8
from leadline.kernels.native import library
from leadline.kernels.reference.linear import (
    linear,
    linear_fp8,
    linear_fp8_1x128,
    linear_fp8_1x128_ue8m0,
)
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import reference_kernels
from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import read_model_config
from leadline.loader.synthetic import tiny_v3, write_checkpoint

TOLERANCE = 1e-5
CheckpointOf = Callable[..., Path]
OpenModel = Callable[..., Any]


def with_linear_fp8(function: LinearFP8) -> KernelSet:
    """Reference kernels whose every FP8 product, those of the experts included, is `function`."""
    kernels = reference_kernels()
    experts = GroupedMLP(linear, function)
    return dataclasses.replace(kernels, linear_fp8=function, grouped_mlp=experts)


def kept_in_fp8(opened: Any, kernels: KernelSet) -> Any:
    """The opened model with FP8 weights as stored, multiplied by other kernels."""
    path = Path(opened.config.model)
    config = read_model_config(path)
    weights = load_weights(Checkpoint.open(path), config, dtype=torch.float32)
    tree = assemble(weights.tensors, config, has_mtp=weights.has_mtp)
    assert isinstance(tree.layers[0].self_attn.o_proj, QuantTensor)
    model = DeepseekModel(
        config, tree, kernels, ParallelContext(), max_len=opened.config.max_model_len
    )
    loaded = dataclasses.replace(opened.loaded, model=model, kernels=kernels)
    return dataclasses.replace(opened, loaded=loaded)


def loss(logits: torch.Tensor, token_ids: list[int]) -> float:
    """Mean cross entropy of each next token."""
    targets = torch.tensor(token_ids[1:])
    return float(torch.nn.functional.cross_entropy(logits[:-1], targets))


def divergence(exact: torch.Tensor, other: torch.Tensor) -> float:
    """Mean Kullback-Leibler divergence of the next token's distributions, in nats."""
    logs = exact.log_softmax(-1), other.log_softmax(-1)
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())


PRODUCTS = ("linear", "linear_fp8", "router_logits", "grouped_mlp")


def both_ways(opened: Any) -> tuple[Any, Any]:
    """The opened model with FP8 weights as stored, and with the same dequantised."""
    models = (load_model(opened.config, dequantize=dequantize) for dequantize in (False, True))
    kept, dense = (dataclasses.replace(opened, loaded=loaded) for loaded in models)
    return kept, dense


@pytest.mark.parametrize("kernels", ["", "tiled", "reference"])
@pytest.mark.parametrize("shape", ["v3", "v2-lite", "kimi"])
def test_kept_weights_equal_dequantised_ones(
    shape: str,
    kernels: str,
    checkpoint_of: CheckpointOf,
    open_model: OpenModel,
    token_ids: list[int],
) -> None:
    changes = {"kernels": dict.fromkeys(PRODUCTS, kernels)} if kernels else {}
    changes |= {"batch_invariant": False} if kernels == "reference" else {}
    kept, dense = both_ways(open_model(checkpoint_of(shape, "fp8"), **changes))
    logits, expected = kept.logits(token_ids, 64), dense.logits(token_ids, 64)
    assert expected.std() > 0.1
    assert (logits - expected).abs().max() < TOLERANCE
    assert kept.loaded.num_bytes < dense.loaded.num_bytes
    if not kernels and library.LIBRARY is not None:
        assert torch.equal(logits, expected), "how weights are held changes no text"


def test_kept_mtp_layer_equals_the_dequantised_one(
    checkpoint_of: CheckpointOf, open_model: OpenModel, token_ids: list[int]
) -> None:
    kept, dense = both_ways(open_model(checkpoint_of("v3", "fp8")))
    expected = dense.mtp_logits(token_ids, 64)
    assert (kept.mtp_logits(token_ids, 64) - expected).abs().max() < TOLERANCE


@pytest.fixture(scope="module")
def steady_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every token meets every expert, so that rounding cannot swap one for another."""
    path = tmp_path_factory.mktemp("steady")
    all_experts = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1}
    write_checkpoint(path, tiny_v3() | all_experts, fmt="fp8")
    return path


FP8_ACTIVATIONS = [linear_fp8_1x128, linear_fp8_1x128_ue8m0]


@pytest.mark.parametrize("function", FP8_ACTIVATIONS)
def test_fp8_activations_cost_little(
    function: LinearFP8, steady_checkpoint: Path, open_model: OpenModel, token_ids: list[int]
) -> None:
    """e4m3 moves a value by 2 to 3 in a hundred; four layers together by less than 20."""
    opened = open_model(steady_checkpoint, batch_invariant=False)
    exact = kept_in_fp8(opened, with_linear_fp8(linear_fp8)).logits(token_ids, 64)
    rounded = kept_in_fp8(opened, with_linear_fp8(function)).logits(token_ids, 64)
    assert 0.01 < (rounded - exact).norm() / exact.norm() < 0.2
    assert divergence(exact, rounded) < 0.02
    assert abs(loss(rounded, token_ids) - loss(exact, token_ids)) < 0.05


@pytest.mark.parametrize("function", FP8_ACTIVATIONS)
def test_fp8_activations_with_routing(
    function: LinearFP8, checkpoint_of: CheckpointOf, open_model: OpenModel, token_ids: list[int]
) -> None:
    """Some tokens meet other experts now, which moves them further."""
    opened = open_model(checkpoint_of("v3", "fp8"), batch_invariant=False)
    exact = kept_in_fp8(opened, with_linear_fp8(linear_fp8)).logits(token_ids, 64)
    rounded = kept_in_fp8(opened, with_linear_fp8(function)).logits(token_ids, 64)
    assert 0 < divergence(exact, rounded) < 0.15
    assert abs(loss(rounded, token_ids) - loss(exact, token_ids)) < 0.15
