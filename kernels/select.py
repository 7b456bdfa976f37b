"""Chooses one implementation of each operation, once, and keeps the reason for every rejection."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from leadline.kernels.api import KernelSet
from leadline.kernels.native import library
from leadline.kernels.native.table import native_kernels
from leadline.kernels.reference import (
    cache,
    drafts,
    linear,
    logits,
    logprobs,
    mla,
    mla_tiled,
    moe,
    norm,
    quant,
    rope,
    sample,
    tiled,
)
from leadline.kernels.reference.decoder import one_by_one
from leadline.kernels.triton.table import (
    Deferred,
    invariant_kernels,
    missing,
    triton_kernels,
    ue8m0_kernels,
)
from leadline.kernels.vendor.cublas import vocab_logits
from leadline.kernels.vendor.table import VendorKernel, rejection, vendor_kernels


class KernelError(Exception):
    """An override that cannot be honoured, or an operation that no implementation can do."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What kernels run on.

    Attributes:
        device: `cpu` or `cuda`.
        batch_invariant: a row's bits must not depend on the batch around it.
    """

    device: str = "cpu"
    batch_invariant: bool = False


@dataclass(frozen=True, slots=True)
class Implementation:
    """One way to compute an operation.

    Attributes:
        name: as shown and as given in an override, for example `reference`.
        function: the callable; its contract is in `api`.
        reject: a reason why the platform cannot use it, or None.
        batch_invariant: rows are independent of their batch, bit for bit.
        formats: declared number formats, for people (`linear_fp8`).
        parts: operations that it stands for, and the implementations that it goes with.
    """

    name: str
    function: Callable[..., Any]
    batch_invariant: bool
    reject: Callable[[Platform], str | None] = lambda platform: None
    formats: str = ""
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Why an operation is computed as it is.

    Attributes:
        rejected: (implementation, reason) of those that come before the chosen one.
    """

    operation: str
    chosen: str
    formats: str
    rejected: list[tuple[str, str]]


def _reference(
    function: Callable[..., Any], *, batch_invariant: bool = True, formats: str = ""
) -> Implementation:
    return Implementation("reference", function, batch_invariant, formats=formats)


def _tiled(function: Callable[..., Any], *, formats: str = "") -> Implementation:
    return Implementation("tiled", function, batch_invariant=True, formats=formats)


def _reject_native(platform: Platform) -> str | None:
    if platform.device != "cpu":
        return f"computes on a CPU, not on {platform.device}"
    return library.MISSING if library.LIBRARY is None else None


def _with_native(table: dict[str, list[Implementation]]) -> dict[str, list[Implementation]]:
    """The native kernels before torch's."""
    for operation, kernel in native_kernels().items():
        parts = tuple((part, ("native",)) for part in kernel.parts)
        candidate = Implementation(
            "native", kernel.function, True, _reject_native, kernel.formats, parts
        )
        table[operation].insert(0, candidate)
    return table


def _with_triton(table: dict[str, list[Implementation]]) -> dict[str, list[Implementation]]:
    """Triton's kernels before the others."""

    def reject(platform: Platform) -> str | None:
        return missing(platform.device)

    tables = invariant_kernels(), ue8m0_kernels(), triton_kernels()
    for operation, kernel in [item for table in tables for item in table.items()]:
        is_invariant, formats, parts = kernel.batch_invariant, kernel.formats, kernel.parts
        candidate = Implementation(
            kernel.name, kernel.function, is_invariant, reject, formats, parts
        )
        table[operation].insert(0, candidate)
    return table


def _with_vendors(table: dict[str, list[Implementation]]) -> dict[str, list[Implementation]]:
    """Other projects' kernels before ours for any device."""

    def adapted(kernel: VendorKernel) -> Implementation:
        return Implementation(
            kernel.name,
            kernel.function,
            batch_invariant=False,
            reject=lambda platform: rejection(kernel, platform.device),
            formats=kernel.formats,
        )

    for kernel in reversed(vendor_kernels()):
        table[kernel.operation].insert(0, adapted(kernel))
    return table


def _with_cublas(table: dict[str, list[Implementation]]) -> dict[str, list[Implementation]]:
    """cuBLAS, through torch, before all others: nobody multiplies bfloat16 better."""

    def reject(platform: Platform) -> str | None:
        return None if platform.device == "cuda" else f"needs a CUDA device, not {platform.device}"

    for operation, function in (("linear", linear.linear), ("vocab_logits", vocab_logits)):
        table[operation].insert(0, Implementation("cublas", function, False, reject))
    return table


def implementations() -> dict[str, list[Implementation]]:
    """Every implementation of every operation, the preferred first."""
    return _with_cublas(_with_triton(_with_vendors(_with_native(_for_any_device()))))


def _for_any_device() -> dict[str, list[Implementation]]:
    """In torch."""
    fp8_formats = "activations as they are"
    return {
        "rms_norm": [_reference(norm.rms_norm)],
        "add_rms_norm": [_reference(norm.add_rms_norm)],
        "apply_rope": [_reference(rope.apply_rope)],
        "linear": [
            _reference(linear.linear, batch_invariant=False),
            _tiled(tiled.linear_tiled),
        ],
        "linear_fp8": [
            _reference(linear.linear_fp8, batch_invariant=False, formats=fp8_formats),
            _tiled(tiled.linear_fp8_tiled, formats=fp8_formats),
        ],
        "quantize_fp8": [_reference(quant.quantize_fp8)],
        "swiglu": [_reference(moe.swiglu)],
        "vocab_logits": [
            _reference(linear.vocab_logits, batch_invariant=False),
            _tiled(tiled.vocab_logits_tiled),
        ],
        "router_logits": [
            _reference(linear.router_logits, batch_invariant=False),
            _tiled(tiled.router_logits_tiled),
        ],
        "route": [_reference(moe.route)],
        "permute": [_reference(moe.permute)],
        "grouped_mlp": [
            _reference(moe.GroupedMLP(), batch_invariant=False),
            _tiled(tiled.TiledGroupedMLP()),
        ],
        "unpermute": [_reference(moe.unpermute)],
        "write_latent": [_reference(cache.write_latent)],
        "read_latent": [_reference(cache.read_latent)],
        "merge_attention": [
            _reference(mla.merge_attention),
        ],
        "mla_attention": [
            _reference(mla.ReferenceMLA, batch_invariant=False),
            _tiled(mla_tiled.TiledMLA),
        ],
        "process_logits": [
            _reference(logits.process_logits),
        ],
        "sample": [_reference(sample.sample)],
        "sample_shard": [_reference(sample.sample_shard)],
        "merge_shards": [_reference(sample.merge_shards)],
        "count_accepted": [_reference(drafts.count_accepted)],
        "token_logprobs": [
            _reference(logprobs.token_logprobs),
        ],
        "fuse_layers": [
            _reference(one_by_one),
        ],
        "fuse_mtp": [
            _reference(one_by_one),
        ],
    }


def _rejection(
    implementation: Implementation, platform: Platform, chosen: Mapping[str, Choice]
) -> str | None:
    for part, names in implementation.parts:
        if chosen[part].chosen not in names:
            return f"{part} is {chosen[part].chosen}"
    if platform.batch_invariant and not implementation.batch_invariant:
        return "its bits depend on the batch"
    return implementation.reject(platform)


def _choose(
    operation: str,
    candidates: list[Implementation],
    platform: Platform,
    override: str | None,
    choices: list[Choice],
) -> tuple[Implementation, Choice]:
    names = [candidate.name for candidate in candidates]
    if override is not None and override not in names:
        raise KernelError(
            f"no implementation {override!r} of {operation}; there is {', '.join(names)}"
        )
    chosen = {choice.operation: choice for choice in choices}
    rejected: list[tuple[str, str]] = []
    for candidate in candidates:
        reason = _rejection(candidate, platform, chosen)
        if reason is None and override not in (None, candidate.name):
            reason = f"{override} was asked for"
        elif reason is not None and candidate.name == override:
            raise KernelError(f"{operation}={override} cannot be used: {reason}")
        if reason is None:
            return candidate, Choice(operation, candidate.name, candidate.formats, rejected)
        rejected.append((candidate.name, reason))
    raise KernelError(f"nothing can compute {operation} on {platform}: {rejected}")


def select_kernels(
    platform: Platform, overrides: Mapping[str, str] | None = None
) -> tuple[KernelSet, list[Choice]]:
    """The kernel set for a platform, and for each operation why.

    Args:
        platform: what the kernels are to run on.
        overrides: operation -> implementation name.

    Raises:
        KernelError: an override names an unknown operation or cannot be honoured.
    """
    overrides = overrides or {}
    table = implementations()
    operations = [field.name for field in fields(KernelSet)]
    assert sorted(table) == sorted(operations), "every operation has its implementations"
    unknown = sorted(set(overrides) - set(operations))
    if unknown:
        raise KernelError(
            f"unknown operation {', '.join(unknown)}; there is {', '.join(operations)}"
        )
    functions: dict[str, Callable[..., Any]] = {}
    choices: list[Choice] = []
    for operation in operations:
        override = overrides.get(operation)
        chosen, choice = _choose(operation, table[operation], platform, override, choices)
        function = chosen.function
        functions[operation] = function.load() if isinstance(function, Deferred) else function
        choices.append(choice)
    return KernelSet(**functions), choices


def reads_fp8(choices: list[Choice]) -> bool:
    """Whether FP8 weights are multiplied as they are stored, not widened as a whole each time."""
    products = [c for c in choices if c.operation in ("linear_fp8", "grouped_mlp")]
    return not any(choice.chosen in ("reference", "tiled") for choice in products)


def reference_kernels() -> KernelSet:
    """The specification itself; gradients pass through it."""
    operations = [field.name for field in fields(KernelSet)]
    return select_kernels(Platform(), dict.fromkeys(operations, "reference"))[0]
