"""One implementation of each operation is chosen, and the reasons are kept."""

from dataclasses import fields

import pytest

from leadline.kernels import select
from leadline.kernels.api import KernelSet
from leadline.kernels.native import library
from leadline.kernels.reference import linear
from leadline.kernels.select import (
    Implementation,
    KernelError,
    Platform,
    implementations,
    reference_kernels,
    select_kernels,
)

OPERATIONS = {field.name for field in fields(KernelSet)}


def only_cuda(platform: Platform) -> str | None:
    return None if platform.device == "cuda" else f"needs a CUDA device, not {platform.device}"


@pytest.fixture
def with_fast(monkeypatch: pytest.MonkeyPatch) -> Implementation:
    """A table whose `linear` prefers an implementation for GPUs."""
    table = implementations()
    fast = Implementation("fast", lambda x, w: x @ w.T, False, only_cuda)
    table["linear"].insert(0, fast)
    monkeypatch.setattr(select, "implementations", lambda: table)
    return fast


def test_every_operation_has_a_choice() -> None:
    kernels, choices = select_kernels(Platform())
    assert {choice.operation for choice in choices} == OPERATIONS
    assert all(callable(getattr(kernels, operation)) for operation in OPERATIONS)


def test_batch_invariant_takes_invariant_ones_only(monkeypatch: pytest.MonkeyPatch) -> None:
    table = implementations()
    monkeypatch.setattr(select, "implementations", lambda: table)
    kernels, choices = select_kernels(Platform(batch_invariant=True))
    for choice in choices:
        chosen = next(c for c in table[choice.operation] if c.name == choice.chosen)
        assert chosen.batch_invariant, choice.operation
        assert getattr(kernels, choice.operation) is chosen.function


def test_without_the_library_the_table_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", None)
    monkeypatch.setattr(library, "MISSING", "not built: install a compiler")
    kernels, choices = select_kernels(Platform(batch_invariant=True))
    choice = next(choice for choice in choices if choice.operation == "linear")
    assert choice.chosen == "tiled"
    assert choice.rejected[-2:] == [
        ("native", "not built: install a compiler"),
        ("reference", "its bits depend on the batch"),
    ]
    assert kernels.linear is next(
        c.function for c in implementations()["linear"] if c.name == "tiled"
    )
    with pytest.raises(KernelError, match="linear=native cannot be used: not built"):
        select_kernels(Platform(), {"linear": "native"})


def test_native_kernels_are_for_cpus() -> None:
    native = next(c for c in implementations()["linear"] if c.name == "native")
    assert native.reject(Platform(device="cuda")) == "computes on a CPU, not on cuda"


def test_reference_kernels_are_the_reference() -> None:
    assert reference_kernels().linear is linear.linear


def test_the_first_that_fits_is_chosen(with_fast: Implementation) -> None:
    kernels, choices = select_kernels(Platform(device="cuda"))
    choice = next(c for c in choices if c.operation == "linear")
    assert kernels.linear is with_fast.function
    assert (choice.chosen, choice.rejected) == ("fast", [])


def test_reasons_are_kept(with_fast: Implementation) -> None:
    _, choices = select_kernels(Platform(device="cpu"), {"linear": "reference"})
    choice = next(c for c in choices if c.operation == "linear")
    assert choice.chosen == "reference"
    assert choice.rejected[0] == ("fast", "needs a CUDA device, not cpu")


def test_override_is_taken() -> None:
    kernels, choices = select_kernels(Platform(), {"linear": "tiled"})
    choice = next(c for c in choices if c.operation == "linear")
    assert choice.chosen == "tiled"
    assert kernels.linear.__name__ == "linear_tiled"


def test_override_of_an_unknown_operation() -> None:
    with pytest.raises(KernelError, match=r"unknown operation lineer; there is .*linear_fp8"):
        select_kernels(Platform(), {"lineer": "tiled"})


def test_override_with_an_unknown_name() -> None:
    with pytest.raises(KernelError, match=r"mkl.*reference, tiled"):
        select_kernels(Platform(), {"linear": "mkl"})


def test_override_that_the_platform_cannot_honour(with_fast: Implementation) -> None:
    with pytest.raises(KernelError, match="linear=fast cannot be used: needs a CUDA device"):
        select_kernels(Platform(device="cpu"), {"linear": "fast"})


def test_override_against_batch_invariance() -> None:
    with pytest.raises(KernelError, match="linear=reference cannot be used: its bits depend"):
        select_kernels(Platform(batch_invariant=True), {"linear": "reference"})


def test_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    table = implementations() | {"linear": [Implementation("fast", len, True, only_cuda)]}
    monkeypatch.setattr(select, "implementations", lambda: table)
    with pytest.raises(KernelError, match=r"nothing can compute linear.*needs a CUDA device"):
        select_kernels(Platform())


def test_fp8_products_name_their_formats() -> None:
    _, choices = select_kernels(Platform())
    choice = next(c for c in choices if c.operation == "linear_fp8")
    assert choice.formats == "activations as they are"
