"""Every Triton kernel against the reference, in Triton's interpreter where there is no GPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from leadline.kernels.reference.linear import linear, linear_fp8_1x128, linear_fp8_1x128_ue8m0
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import implementations
from leadline.kernels.testing import (
    FLOAT32_TOLERANCE,
    operation_inputs,
    relative_error,
    to_device,
)
from leadline.kernels.triton.table import triton_kernels, ue8m0_kernels

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
# The interpreter computes in numpy, which warns of what float arithmetic does by definition.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = triton_kernels()
# With tests of their own; layers in tests/golden/test_triton.py.
WITH_A_CACHE = {"fuse_layers", "fuse_mtp", "mla_attention", "read_latent", "write_latent"}
# FP8 tensor cores keep about 14 bits of a sum of 128 products.
FP8_SUMS = {"linear_fp8", "grouped_mlp"}
A_PROGRAM_A_ROW = {"process_logits", "route", "sample", "sample_shard", "token_logprobs"}
# What these compute is a format of its own (`api.LinearFP8`).
REFERENCES: dict[str, Callable[..., Any]] = {
    "linear_fp8": linear_fp8_1x128,
    "grouped_mlp": GroupedMLP(linear, linear_fp8_1x128),
}
FLOATS = (torch.float32, torch.bfloat16)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reference(operation: str) -> Callable[..., Any]:
    if operation in REFERENCES:
        return REFERENCES[operation]
    return next(c.function for c in implementations()[operation] if c.name == "reference")


@pytest.mark.parametrize("operation", sorted(ue8m0_kernels()))
def test_scales_that_are_powers_of_two(operation: str) -> None:
    kernel = ue8m0_kernels()[operation].function
    expected_by = {
        "linear_fp8": linear_fp8_1x128_ue8m0,
        "grouped_mlp": GroupedMLP(linear, linear_fp8_1x128_ue8m0),
    }[operation]
    tolerance = 2e-3 if DEVICE == "cuda" else FLOAT32_TOLERANCE
    for arguments in operation_inputs()[operation][2:6]:
        actual = kernel(*to_device(arguments, DEVICE)).cpu()
        assert relative_error(actual, expected_by(*arguments)) < tolerance


def tensors_of(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [tensor for item in value for tensor in tensors_of(item)]


def pairs(operation: str, arguments: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tensors that the kernel and the reference return."""
    actual = KERNELS[operation].function(*to_device(arguments, DEVICE))
    expected = reference(operation)(*arguments)
    return [
        (got.cpu(), wanted)
        for got, wanted in zip(tensors_of(actual), tensors_of(expected), strict=True)
    ]


@pytest.mark.parametrize("operation", sorted(set(KERNELS) - WITH_A_CACHE))
def test_equals_reference(operation: str) -> None:
    tolerance = 2e-3 if DEVICE == "cuda" and operation in FP8_SUMS else FLOAT32_TOLERANCE
    for arguments in operation_inputs()[operation]:
        if operation in A_PROGRAM_A_ROW and DEVICE == "cpu" and len(arguments[0]) > 5:
            continue  # the interpreter is slow
        for got, wanted in pairs(operation, arguments):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            if wanted.dtype in FLOATS:
                assert relative_error(got, wanted) < tolerance
            else:
                assert torch.equal(got.view(torch.uint8), wanted.view(torch.uint8))


def in_bfloat16(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
        return value.bfloat16()
    return value


@pytest.mark.parametrize(
    "operation", sorted({"add_rms_norm", "apply_rope", "rms_norm", "swiglu"} & set(KERNELS))
)
def test_bfloat16_is_the_reference_rounded_once(operation: str) -> None:
    """At most twice the error of the reference in bfloat16, both against float32."""
    for arguments in operation_inputs()[operation]:
        first = len(arguments) if operation != "apply_rope" else 1
        short = [in_bfloat16(a) for a in arguments[:first]] + list(arguments[first:])
        long = [a.float() if isinstance(a, torch.Tensor) else a for a in short]
        exact = tensors_of(reference(operation)(*long))
        for (got, wanted), truth in zip(pairs(operation, short), exact, strict=True):
            assert got.dtype == wanted.dtype == torch.bfloat16
            allowed = 2 * relative_error(wanted, truth) + 1e-6
            assert relative_error(got, truth) <= allowed


def test_rows_of_a_wider_tensor() -> None:
    """Slices of a projection's output are taken as they lie."""
    wide = torch.randn(5, 300, device=DEVICE)
    part = wide[:, 100:260]
    weight = torch.rand(160, device=DEVICE)
    for operation, arguments in {
        "rms_norm": (weight, 1e-6),
        "add_rms_norm": (part + 1, weight, 1e-6),
        "quantize_fp8": ("fp32",),
        "swiglu": (),
    }.items():
        for got, wanted in pairs(operation, (part.cpu(), *to_device(arguments, "cpu"))):
            assert relative_error(got.float(), wanted.float()) < FLOAT32_TOLERANCE
        strided = tensors_of(KERNELS[operation].function(part, *arguments))
        dense = tensors_of(KERNELS[operation].function(part.contiguous(), *arguments))
        for a, b in zip(strided, dense, strict=True):
            assert torch.equal(a.float(), b.float())


def test_a_residual_that_is_the_input_itself() -> None:
    x, weight = torch.randn(3, 72, device=DEVICE), torch.ones(72, device=DEVICE)
    _, total = KERNELS["add_rms_norm"].function(x, x, weight, 1e-6)
    assert torch.equal(total, 2 * x)
