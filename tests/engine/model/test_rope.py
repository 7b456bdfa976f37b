"""Rotary frequencies and scales against those of transformers."""

from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3RotaryEmbedding,
    yarn_apply_mscale,
)

from leadline.engine.model.rope import RopeTable, inverse_frequencies, softmax_scale
from leadline.loader.model_config import ModelConfig, parse_model_config
from leadline.loader.synthetic import tiny_v3

V3 = {
    "type": "yarn",
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
SCALINGS: dict[str, dict[str, Any]] = {
    "v3": V3,
    "v2-lite": V3 | {"mscale": 0.707, "mscale_all_dim": 0.707},
    "magnitude": V3 | {"mscale": 1.5, "mscale_all_dim": 0.5},
    "kimi": V3 | {"factor": 32, "beta_fast": 1.0},
    "no-mscale": {k: v for k, v in V3.items() if not k.startswith("mscale")},
    "small": V3 | {"factor": 4, "original_max_position_embeddings": 64},
    "no-scaling": V3 | {"factor": 1.0},
}
SIZES = [(10000, 64), (50000, 64), (10000, 16)]


def both_configs(
    scaling: dict[str, Any] | None, theta: float = 10000, dim: int = 64
) -> tuple[ModelConfig, Any]:
    raw = tiny_v3() | {
        "rope_scaling": scaling,
        "rope_theta": theta,
        "qk_rope_head_dim": dim,
        "max_position_embeddings": 163840,
    }
    return parse_model_config(raw), DeepseekV3Config(**raw)


@pytest.mark.parametrize(("theta", "dim"), SIZES)
@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_yarn_frequencies(scaling: dict[str, Any], theta: float, dim: int) -> None:
    config, oracle = both_configs(scaling, theta, dim)
    expected, _ = ROPE_INIT_FUNCTIONS["yarn"](oracle)
    assert torch.allclose(inverse_frequencies(config), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("theta", "dim"), SIZES)
def test_plain_frequencies(theta: float, dim: int) -> None:
    config, _ = both_configs(None, theta, dim)
    expected = torch.tensor([theta ** (-i / dim) for i in range(0, dim, 2)])
    assert torch.allclose(inverse_frequencies(config), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_softmax_scale(scaling: dict[str, Any]) -> None:
    config, oracle = both_configs(scaling)
    expected = yarn_apply_mscale(oracle.rope_parameters, config.qk_head_dim**-0.5)
    assert softmax_scale(config) == pytest.approx(expected, rel=1e-7)


def test_softmax_scale_without_yarn() -> None:
    config, _ = both_configs(None)
    assert softmax_scale(config) == pytest.approx((16 + 64) ** -0.5)


def test_softmax_scale_of_the_full_model() -> None:
    """V3: 192 ** -0.5 times 1.3689 ** 2."""
    config, _ = both_configs(V3)
    assert softmax_scale(config) * config.qk_head_dim**0.5 == pytest.approx(1.8738542, rel=1e-6)


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_table(scaling: dict[str, Any]) -> None:
    """Angles reach 5,000 here: their float32 rounding moves a cosine by up to 3e-4."""
    config, oracle = both_configs(scaling)
    positions = torch.tensor([0, 1, 63, 64, 4095, 4999])
    cos, sin = RopeTable(config, 5000).lookup(positions)
    rotary = DeepseekV3RotaryEmbedding(oracle)
    expected_cos, expected_sin = rotary(torch.zeros(1), positions.unsqueeze(0))
    half = config.qk_rope_head_dim // 2
    assert cos.dtype == sin.dtype == torch.float32
    assert torch.allclose(cos, expected_cos[0, :, :half], atol=1e-3)
    assert torch.allclose(sin, expected_sin[0, :, :half], atol=1e-3)
