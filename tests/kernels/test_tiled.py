"""Batch-invariant products: several ways to compute them, one result, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.reference.tiled import (
    ROWS,
    TiledGroupedMLP,
    linear_fp8_tiled,
    linear_tiled,
)

# hidden size, expert width: the built-in model's, and one that fills no vector register.
SHAPES = [(256, 48), (72, 20)]


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3 * ROWS + 1), min_size=1, max_size=24),
    seed=st.integers(0, 1000),
)
def test_experts_together_and_one_by_one_agree(
    shape: tuple[int, int], counts: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden, width = shape
    gate_up = torch.randn(len(counts), 2 * width, hidden, generator=generator) / hidden**0.5
    down = torch.randn(len(counts), hidden, width, generator=generator) / width**0.5
    x = torch.randn(sum(counts), hidden, generator=generator)
    one_by_one = GroupedMLP(linear_tiled, linear_fp8_tiled)
    arguments = (x, torch.tensor(counts), gate_up, down)
    assert torch.equal(TiledGroupedMLP()(*arguments), one_by_one(*arguments))
