"""Mixture of experts in Triton: ties, odd sizes, both layouts of the grouped product."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.reference import moe
from leadline.kernels.reference.linear import linear, linear_fp8_1x128
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    V2_ROUTER,
    V3_ROUTER,
    random_quant,
    relative_error,
    to_device,
)
from leadline.kernels.types import QuantTensor, RouterConfig

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.experts import grouped_mlp
from leadline.kernels.triton.grouped_linear import grouped_linear
from leadline.kernels.triton.permute import permute, unpermute
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.router import route

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# FP8 tensor cores keep about 14 bits of a sum of 128 products.
TOLERANCE = 2e-3 if DEVICE == "cuda" else FLOAT32_TOLERANCE
V3 = RouterConfig("sigmoid", 8, 4, 8, "top2_sum", True, 2.5)
ODD = RouterConfig("softmax", 3, 2, 5, "top2_sum", False, 1.5)
SINGLE = RouterConfig("sigmoid", 6, 3, 3, "top2_sum", True, 1.0)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("config", "num_experts"),
    [(V3, 256), (ODD, 21), (SINGLE, 6), (V2_ROUTER, 24)],
    ids=["v3", "odd", "groups of one", "v2"],
)
def test_routes_as_the_reference(config: RouterConfig, num_experts: int) -> None:
    """Scores rounded to sixteenths: many ties, between experts and between groups."""
    for logits in (torch.randn(2, num_experts), torch.randint(-2, 3, (3, num_experts)).float()):
        for bias in (None, torch.randint(-8, 9, (num_experts,)) / 16, torch.zeros(num_experts) - 2):
            expected_ids, expected = moe.route(logits, bias, config)
            ids, weights = route(*to_device((logits, bias), DEVICE), config)
            assert torch.equal(ids.cpu(), expected_ids)
            assert relative_error(weights.cpu(), expected) < FLOAT32_TOLERANCE


def test_every_group_may_win() -> None:
    config = dataclasses.replace(V3_ROUTER, num_top_groups=4)
    logits = torch.randn(5, 16)
    for actual, expected in zip(
        route(logits.to(DEVICE), None, config), moe.route(logits, None, config), strict=True
    ):
        assert relative_error(actual.cpu(), expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("config", [V3_ROUTER, V2_ROUTER], ids=["v3", "v2"])
def test_a_token_of_nan_gets_experts_that_there_are(config: RouterConfig) -> None:
    """And the others get theirs: a request that breaks is not to break its batch."""
    logits = torch.randn(3, 16)
    logits[1] = torch.nan
    ids, weights = (part.cpu() for part in route(logits.to(DEVICE), None, config))
    expected_ids, expected = moe.route(logits, None, config)
    assert torch.equal(ids, expected_ids)
    assert torch.allclose(weights, expected, equal_nan=True)


@settings(max_examples=6, deadline=None)
@given(
    num_tokens=st.integers(1, 70),
    num_experts=st.integers(1, 9),
    top_k=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_permutation_is_that_of_the_reference(
    num_tokens: int, num_experts: int, top_k: int, seed: int
) -> None:
    torch.manual_seed(seed)
    ids = torch.randint(0, num_experts, (num_tokens, top_k))
    x = torch.randn(num_tokens, 3)
    rows, permutation = permute(*to_device((x, ids), DEVICE), num_experts)
    expected_rows, expected = moe.permute(x, ids, num_experts)
    assert torch.equal(rows.cpu(), expected_rows)
    assert torch.equal(permutation.order_R.cpu(), expected.order_R)
    assert torch.equal(permutation.counts.cpu(), expected.counts)
    weights = torch.rand(num_tokens, top_k)
    summed = unpermute(rows, permutation, weights.to(DEVICE)).cpu()
    assert relative_error(summed, moe.unpermute(expected_rows, expected, weights)) < 1e-6


def test_many_choices_of_one_program() -> None:
    """More chunks than programs: each goes through several."""
    ids = torch.randint(0, 5, (1100, 4))
    _, permutation = permute(torch.zeros(1100, 0, device=DEVICE), ids.to(DEVICE), 5)
    assert torch.equal(permutation.order_R.cpu(), ids.flatten().argsort(stable=True))


def test_sums_in_routing_order() -> None:
    """1 + 1e8 - 1e8 in float32: the order is seen in the result."""
    by_expert = torch.tensor([[1e8], [-1e8], [1.0]], device=DEVICE)
    for ids, expected in (([[2, 0, 1]], 0.0), ([[0, 1, 2]], 1.0)):
        _, permutation = permute(*to_device((torch.zeros(1, 1), torch.tensor(ids)), DEVICE), 3)
        weights = torch.ones(1, 3, device=DEVICE)
        assert unpermute(by_expert, permutation, weights).item() == expected


@pytest.mark.parametrize("counts", [[3, 0, 20, 1], [0, 0, 0, 5], [130, 0, 150, 120]])
def test_grouped_product(counts: list[int]) -> None:
    """Experts without rows, with a part of a tile and with several tiles."""
    weight = random_quant(4, 144, 160)
    rows = torch.randn(sum(counts), 160)
    host_counts = torch.tensor(counts)
    expected = torch.cat(
        [
            linear_fp8_1x128(part, QuantTensor(weight.data[e], weight.scale[e]))
            for e, part in enumerate(rows.split(counts))
        ]
    )
    quantized = quantize_fp8(rows.to(DEVICE))
    y = grouped_linear(*quantized, *to_device((host_counts, weight), DEVICE), torch.float32)
    assert relative_error(y.cpu(), expected) < TOLERANCE


def test_grouped_product_of_places() -> None:
    """The masked layout: what is not filled is neither read nor written."""
    counts, places = [2, 0, 7], 8
    weight = random_quant(3, 40, 160)
    rows = torch.randn(3, places, 160)
    for expert, count in enumerate(counts):
        rows[expert, count:] = torch.nan
    y = grouped_linear(
        *quantize_fp8(rows.flatten(0, 1).to(DEVICE)),
        *to_device((torch.tensor(counts), weight), DEVICE),
        torch.float32,
        rows_of_expert=places,
    ).cpu()
    for expert, count in enumerate(counts):
        part = QuantTensor(weight.data[expert], weight.scale[expert])
        expected = linear_fp8_1x128(rows[expert, :count], part)
        actual = y[expert * places : expert * places + count]
        assert relative_error(actual, expected) < TOLERANCE


def test_experts_that_a_descriptor_cannot_take() -> None:
    """Rows of 100 bytes."""
    gate_up, down = random_quant(3, 80, 100), random_quant(3, 100, 40)
    rows, counts = torch.randn(9, 100), torch.tensor([4, 0, 5])
    expected = moe.GroupedMLP(linear, linear_fp8_1x128)(rows, counts, gate_up, down)
    y = grouped_mlp(*to_device((rows, counts, gate_up, down), DEVICE)).cpu()
    assert relative_error(y, expected) < TOLERANCE
