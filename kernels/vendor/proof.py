"""Another project's kernel against the reference, on the device, before it is used."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leadline.kernels.reference.linear import linear, linear_fp8_1x128
from leadline.kernels.reference.mla import ReferenceMLA
from leadline.kernels.reference.moe import GroupedMLP, permute, route
from leadline.kernels.testing import (
    attention_case,
    random_quant,
    relative_error,
    run_attention,
    to_device,
)
from leadline.kernels.types import RouterConfig

WEIGHT_TOLERANCE = 1e-5
_ROUTER = RouterConfig("sigmoid", 8, 4, 8, "top2_sum", True, 2.5)
_ROWS = [(0, 1), (63, 1), (64, 1), (200, 3), (5, 12), (300, 2)]


def disagreement(operation: str, function: Callable[..., Any], device: str) -> str | None:
    """What is wrong with an adapted kernel's results, or None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return _CHECKS[operation](function, device)
        except Exception as error:  # noqa: BLE001 - of a package that we do not know
            return f"it fails: {type(error).__name__}: {error}"


def _too_far(actual: Tensor, exact: Tensor, rounded: Tensor | None = None) -> str | None:
    """At most twice the error of the reference in bfloat16, both against float32."""
    error = relative_error(actual.float().cpu(), exact)
    tolerance = WEIGHT_TOLERANCE
    if rounded is not None:
        tolerance = 2 * relative_error(rounded.float(), exact) + 1e-3
    return None if error < tolerance else f"differs from the reference by {error:.3g}"


def _check_linear(function: Callable[..., Any], device: str) -> str | None:
    weight = random_quant(384, 256)
    for num_tokens in (0, 1, 33, 300):
        x = torch.randn(num_tokens, 256).bfloat16()
        exact, rounded = (linear_fp8_1x128(values, weight) for values in (x.float(), x))
        if reason := _too_far(function(*to_device((x, weight), device)), exact, rounded):
            return reason
    return None


def _check_experts(function: Callable[..., Any], device: str) -> str | None:
    weights = random_quant(3, 512, 128), random_quant(3, 128, 256)
    for num_tokens in (0, 1, 90):
        ids = torch.randint(0, 2, (num_tokens, 2))  # the last expert has no rows
        x, permutation = permute(torch.randn(num_tokens, 128).bfloat16(), ids, 3)
        arguments = x, permutation.counts, *weights
        reference = GroupedMLP(linear, linear_fp8_1x128)
        exact, rounded = (reference(values, *arguments[1:]) for values in (x.float(), x))
        if reason := _too_far(function(*to_device(arguments, device)), exact, rounded):
            return reason
    return None


def _check_router(function: Callable[..., Any], device: str) -> str | None:
    """Ties included: the smaller index wins."""
    rounded = torch.randn(200, 256).round(decimals=1)
    for logits in (torch.randn(200, 256), rounded, torch.zeros(3, 256)):
        arguments = logits, torch.randn(256).round(decimals=1) / 10, _ROUTER
        ids, weights = function(*to_device(arguments, device))
        expected_ids, expected_weights = route(*arguments)
        if not torch.equal(ids.cpu(), expected_ids):
            return "chooses other experts than the reference"
        if reason := _too_far(weights, expected_weights):
            return reason
    return None


def _check_attention(function: Callable[..., Any], device: str) -> str | None:
    """Unused slots hold NaN."""
    case = attention_case(
        _ROWS, heads=64, latent=512, rope=64, nope=32, value=32, page_size=64, dtype="bfloat16"
    )
    case.q_nope_THN, case.q_rope_THR = case.q_nope_THN.bfloat16(), case.q_rope_THR.bfloat16()
    long = replace(case, q_nope_THN=case.q_nope_THN.float(), q_rope_THR=case.q_rope_THR.float())
    for first_slot in (0, 1):
        rounded = run_attention(ReferenceMLA, case, first_slot)
        exact = run_attention(ReferenceMLA, long, first_slot)
        actual = run_attention(function, to_device(case, device), first_slot)
        if reason := _too_far(actual, exact, rounded):
            return reason
    return None


_CHECKS: dict[str, Callable[[Callable[..., Any], str], str | None]] = {
    "linear_fp8": _check_linear,
    "grouped_mlp": _check_experts,
    "route": _check_router,
    "mla_attention": _check_attention,
}
