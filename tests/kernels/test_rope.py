"""Rotary embedding against the multiplication of complex numbers."""

import pytest
import torch

from leadline.kernels.reference.rope import apply_rope
from leadline.kernels.testing import FLOAT32_TOLERANCE, relative_error


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_is_complex_multiplication() -> None:
    x, angles = torch.randn(7, 3, 16), torch.randn(7, 8) * 100
    turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    product = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns
    expected = torch.view_as_real(product).flatten(-2)
    assert relative_error(apply_rope(x, angles.cos(), angles.sin()), expected) < FLOAT32_TOLERANCE


def test_products_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 1, 1, 16).double()
    frequencies = 1.0 / 100 ** (torch.arange(8) / 8).double()

    def product(query_position: int, key_position: int) -> float:
        angles = torch.tensor([[query_position], [key_position]]) * frequencies
        both = torch.cat((query, key)).float()
        q, k = apply_rope(both, angles.cos().float(), angles.sin().float())
        return float((q * k).sum())

    assert product(90, 83) == pytest.approx(product(7, 0), abs=1e-5)
    assert product(90, 83) != pytest.approx(product(8, 0), abs=1e-2)


def test_position_zero_changes_nothing() -> None:
    x = torch.randn(2, 3, 16, dtype=torch.bfloat16)
    y = apply_rope(x, torch.ones(2, 8), torch.zeros(2, 8))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, x)
