"""Rotary angles with YaRN (Peng et al., 2023), and the softmax scale that goes with them."""

import math

import torch
from torch import Tensor

from leadline.loader.model_config import ModelConfig, YarnConfig


def _magnitude(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _ramp_bound(num_rotations: float, dim: int, theta: float, yarn: YarnConfig) -> float:
    """Index of the frequency that turns `num_rotations` times over the original context."""
    original = yarn.original_max_position_embeddings
    return dim * math.log(original / (num_rotations * 2 * math.pi)) / (2 * math.log(theta))


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angle per position of each rotated pair: float32 [R / 2]."""
    dim, theta, yarn = config.qk_rope_head_dim, config.rope_theta, config.yarn
    exponents = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    frequencies = 1.0 / theta**exponents
    if yarn is None:
        return frequencies
    low = max(math.floor(_ramp_bound(yarn.beta_fast, dim, theta, yarn)), 0)
    high = min(math.ceil(_ramp_bound(yarn.beta_slow, dim, theta, yarn)), dim - 1)
    width = high - low if high > low else 0.001
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
    return frequencies / yarn.factor * ramp + frequencies * (1 - ramp)


def softmax_scale(config: ModelConfig) -> float:
    """Factor on query-key products: 1 / sqrt(N + R), times YaRN's squared magnitude."""
    scale = float(config.qk_head_dim**-0.5)
    if config.yarn is not None and config.yarn.mscale_all_dim:
        scale *= _magnitude(config.yarn.factor, config.yarn.mscale_all_dim) ** 2
    return scale


def _table_magnitude(yarn: YarnConfig | None) -> float:
    if yarn is None:
        return 1.0
    if yarn.mscale and yarn.mscale_all_dim:
        return _magnitude(yarn.factor, yarn.mscale) / _magnitude(yarn.factor, yarn.mscale_all_dim)
    return _magnitude(yarn.factor, 1.0)


class RopeTable:
    """Cosines and sines of every position below `max_len`.

    Attributes:
        cos, sin: float32 [max_len, R / 2].
    """

    def __init__(self, config: ModelConfig, max_len: int) -> None:
        positions = torch.arange(max_len, dtype=torch.float32)
        angles = positions.unsqueeze(1) * inverse_frequencies(config)
        magnitude = _table_magnitude(config.yarn)
        self.cos, self.sin = angles.cos() * magnitude, angles.sin() * magnitude

    def lookup(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """(cos, sin) of each position: float32 [T, R / 2]."""
        return self.cos[positions_T], self.sin[positions_T]
