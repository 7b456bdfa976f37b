"""Mixture of experts against plain Python."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.kernels.reference.moe import GroupedMLP, permute, route, sigmoid, swiglu, unpermute
from leadline.kernels.testing import FLOAT32_TOLERANCE, random_quant, relative_error
from leadline.kernels.types import QuantTensor, RouterConfig

V3 = RouterConfig("sigmoid", 4, 2, 4, "top2_sum", True, 2.5)
KIMI = RouterConfig("sigmoid", 1, 1, 4, "top2_sum", True, 2.827)
V2 = RouterConfig("softmax", 4, 2, 3, "max", False, 16.0)
V2_LITE = RouterConfig("softmax", 1, 1, 6, "max", False, 1.0)
CONFIGS = {"v3": V3, "kimi": KIMI, "v2": V2, "v2-lite": V2_LITE}
NUM_EXPERTS = 16


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def largest(scores: list[float], k: int, among: list[int]) -> list[int]:
    """Indices of the k largest, the smaller index first where they are equal."""
    return sorted(among, key=lambda i: (-scores[i], i))[:k]


def brute_force(
    logits: list[float], bias: list[float] | None, config: RouterConfig
) -> tuple[list[int], list[float]]:
    """Equations 12 to 16 of the V3 paper, and section 2.2.2 of the V2 paper, for one token."""
    if config.scoring == "sigmoid":
        scores = [1 / (1 + math.exp(-x)) for x in logits]
    else:
        total = sum(math.exp(x) for x in logits)
        scores = [math.exp(x) / total for x in logits]
    choice = scores if bias is None else [s + b for s, b in zip(scores, bias, strict=True)]
    width = len(logits) // config.num_groups
    groups = [list(range(g * width, (g + 1) * width)) for g in range(config.num_groups)]
    num_counted = 2 if config.group_score == "top2_sum" else 1
    group_scores = [sum(sorted(choice[i] for i in group)[-num_counted:]) for group in groups]
    best = largest(group_scores, config.num_top_groups, list(range(config.num_groups)))
    ids = largest(choice, config.top_k, [i for g in best for i in groups[g]])
    chosen = [scores[i] for i in ids]
    total = sum(chosen) if config.renormalize else 1.0
    return ids, [s / total * config.scaling_factor for s in chosen]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_route_is_the_formula(config: RouterConfig, with_bias: bool) -> None:
    logits = torch.randn(200, NUM_EXPERTS) * 2
    bias = torch.randn(NUM_EXPERTS) * 0.3 if with_bias else None
    ids, weights = route(logits, bias, config)
    assert ids.dtype == torch.int64
    assert weights.dtype == torch.float32
    plain_bias = None if bias is None else bias.tolist()
    for token, row in enumerate(logits.tolist()):
        expected_ids, expected_weights = brute_force(row, plain_bias, config)
        assert ids[token].tolist() == expected_ids
        assert weights[token].tolist() == pytest.approx(expected_weights, rel=1e-5)


def test_groups_exclude_the_best_expert() -> None:
    """Group 0 has the largest score, groups 1 and 2 the largest sums of two."""
    scores = torch.tensor([[3.0, -9.0, 1.2, 1.1, 1.4, 1.3, -9.0, -9.0]])
    config = dataclasses.replace(V3, top_k=2, num_groups=4, num_top_groups=2)
    ids, _ = route(scores, None, config)
    assert ids.tolist() == [[4, 5]]
    by_maximum, _ = route(scores, None, dataclasses.replace(config, group_score="max"))
    assert by_maximum.tolist() == [[0, 4]]


def test_negative_bias_does_not_let_other_groups_in() -> None:
    """All scores of the chosen groups are below 0: still no expert of another group."""
    logits = torch.zeros(1, 8)
    bias = torch.tensor([-2.0, -2.1, -2.2, -2.3, -3.0, -3.1, -3.2, -3.3])
    config = dataclasses.replace(V3, num_groups=2, num_top_groups=1, top_k=4)
    ids, _ = route(logits, bias, config)
    assert ids.tolist() == [[0, 1, 2, 3]]


def test_bias_steers_the_choice_and_not_the_weights() -> None:
    logits = torch.tensor([[0.5, 0.4, 0.3, -0.7]])
    config = RouterConfig("sigmoid", 1, 1, 2, "max", False, 1.0)
    ids, weights = route(logits, torch.tensor([0.0, 0.0, 0.0, 5.0]), config)
    assert ids.tolist() == [[3, 0]]
    assert weights.tolist() == [pytest.approx(torch.sigmoid(logits)[0, [3, 0]].tolist())]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_ties_go_to_the_smaller_index(config: RouterConfig) -> None:
    ids, _ = route(torch.zeros(3, NUM_EXPERTS), None, config)
    assert ids.tolist() == [list(range(config.top_k))] * 3


def test_renormalised_weights_add_up_to_the_scaling_factor() -> None:
    _, weights = route(torch.randn(50, NUM_EXPERTS), torch.randn(NUM_EXPERTS), V3)
    assert weights.sum(-1).tolist() == pytest.approx([2.5] * 50, rel=1e-5)


def test_scores_of_zero_are_no_division_by_zero() -> None:
    _, weights = route(torch.full((2, NUM_EXPERTS), -1000.0), None, V3)
    assert weights.isfinite().all()


def test_sigmoid_is_the_logistic_function() -> None:
    x = torch.linspace(-100, 100, 4001)
    assert torch.allclose(sigmoid(x), torch.sigmoid(x), rtol=1e-6, atol=1e-34)
    assert sigmoid(torch.tensor([math.nan])).isnan().all()


def test_swiglu_takes_the_gate_from_the_first_half() -> None:
    gate, up = torch.randn(2, 5, 33).bfloat16()
    y = swiglu(torch.cat((gate, up), -1))
    expected = torch.nn.functional.silu(gate.float()) * up.float()
    assert y.dtype == torch.bfloat16
    assert torch.allclose(y.float(), expected, rtol=2**-8)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_permute_sorts_and_unpermute_undoes(data: st.DataObject) -> None:
    num_tokens = data.draw(st.integers(0, 9))
    num_experts = data.draw(st.integers(1, 7))
    top_k = data.draw(st.integers(1, num_experts))
    choices = st.permutations(range(num_experts)).map(lambda order: order[:top_k])
    ids = [data.draw(choices) for _ in range(num_tokens)]
    flat_ids = torch.tensor(ids, dtype=torch.int64)
    x = torch.arange(num_tokens * 3).view(num_tokens, 3).float()
    rows, permutation = permute(x, flat_ids.view(num_tokens, top_k), num_experts)

    wanted = sorted((e, token) for token, experts in enumerate(ids) for e in experts)
    assert torch.equal(rows, x[[token for _, token in wanted]])
    assert permutation.counts.tolist() == [
        sum(e == expert for e, _ in wanted) for expert in range(num_experts)
    ]
    weights = torch.rand(num_tokens, top_k)
    factors = torch.tensor([e + 1.0 for e, _ in wanted]).view(-1, 1)
    summed = unpermute(rows * factors, permutation, weights)
    expected = x * ((flat_ids.view(num_tokens, top_k) + 1) * weights).sum(-1, keepdim=True)
    assert torch.allclose(summed, expected, rtol=1e-5)


def test_unpermute_sums_in_routing_order() -> None:
    """1 + 1e8 - 1e8 in float32: the order is seen in the result."""
    ids = torch.tensor([[2, 0, 1]])
    _, permutation = permute(torch.zeros(1, 1), ids, 3)
    by_expert = torch.tensor([[1e8], [-1e8], [1.0]])
    summed = unpermute(by_expert, permutation, torch.ones(1, 3))
    assert summed.item() == 0.0, "(1 + 1e8) - 1e8"
    ids = torch.tensor([[0, 1, 2]])
    _, permutation = permute(torch.zeros(1, 1), ids, 3)
    assert unpermute(by_expert, permutation, torch.ones(1, 3)).item() == 1.0


def test_unpermute_sums_bfloat16_in_float32() -> None:
    ids = torch.arange(4).view(1, 4)
    _, permutation = permute(torch.zeros(1, 1), ids, 4)
    y = torch.tensor([[256.0], [0.5], [0.5], [1.0]], dtype=torch.bfloat16)
    summed = unpermute(y, permutation, torch.ones(1, 4))
    assert summed.dtype == torch.bfloat16
    assert summed.item() == 258.0


def dense_expert(weights: torch.Tensor | QuantTensor, expert: int) -> torch.Tensor:
    if isinstance(weights, QuantTensor):
        weights = weights.dequantize()
    return weights[expert].double()


@pytest.mark.parametrize("fp8", [False, True])
def test_experts_are_a_loop_over_tokens(fp8: bool) -> None:
    num_tokens, num_experts, hidden, width = 11, 6, 160, 96
    make = random_quant if fp8 else lambda *shape: torch.randn(shape) / math.sqrt(shape[-1])
    gate_up, down = make(num_experts, 2 * width, hidden), make(num_experts, hidden, width)
    x = torch.randn(num_tokens, hidden)
    config = RouterConfig("softmax", 1, 1, 2, "max", True, 1.0)
    logits = torch.randn(num_tokens, num_experts)
    logits[:, 4] = -100.0  # an expert without rows
    ids, weights = route(logits, None, config)

    rows, permutation = permute(x, ids, num_experts)
    assert permutation.counts[4] == 0
    y = unpermute(GroupedMLP()(rows, permutation.counts, gate_up, down), permutation, weights)
    for token in range(num_tokens):
        expected = torch.zeros(hidden, dtype=torch.float64)
        for expert, weight in zip(ids[token].tolist(), weights[token].tolist(), strict=True):
            gate, up = (dense_expert(gate_up, expert) @ x[token].double()).chunk(2)
            inner = gate * torch.sigmoid(gate) * up
            expected += weight * (dense_expert(down, expert) @ inner)
        assert relative_error(y[token], expected) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_zero_rows(config: RouterConfig) -> None:
    ids, weights = route(torch.zeros(0, NUM_EXPERTS), None, config)
    assert ids.shape == weights.shape == (0, config.top_k)
    rows, permutation = permute(torch.zeros(0, 24), ids, NUM_EXPERTS)
    assert permutation.counts.tolist() == [0] * NUM_EXPERTS
    gate_up, down = torch.randn(NUM_EXPERTS, 16, 24), torch.randn(NUM_EXPERTS, 24, 8)
    y = GroupedMLP()(rows, permutation.counts, gate_up, down)
    assert unpermute(y, permutation, weights).shape == (0, 24)
