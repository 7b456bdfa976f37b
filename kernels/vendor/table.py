"""Which operations other projects' kernels compute; imports none of them."""

from dataclasses import dataclass
from functools import cache

import torch

from leadline.kernels.triton import table as triton_table
from leadline.kernels.triton.table import Deferred
from leadline.kernels.vendor.packages import DEEP_GEMM, FLASH_MLA, FLASHINFER, TORCH, Package

_FORMATS = "activations fp8 1x128, scales fp32"


@dataclass(frozen=True, slots=True)
class VendorKernel:
    """An operation's function in another project's package.

    Attributes:
        name: as shown, and as given to take it: `linear_fp8=deep-gemm`.
        formats: see `select.Implementation`.
    """

    operation: str
    name: str
    package: Package
    function: Deferred
    formats: str = ""


def vendor_kernels() -> list[VendorKernel]:
    """All of them; within an operation, the preferred first."""

    def kernel(
        operation: str, name: str, package: Package, module: str, function: str
    ) -> VendorKernel:
        formats = "" if operation in ("route", "mla_attention") else _FORMATS
        where = Deferred(module, function, "vendor")
        return VendorKernel(operation, name, package, where, formats)

    return [
        kernel("linear_fp8", "deep-gemm", DEEP_GEMM, "products", "linear_fp8_deep_gemm"),
        kernel("linear_fp8", "flashinfer", FLASHINFER, "products", "linear_fp8_flashinfer"),
        kernel("linear_fp8", "scaled-mm", TORCH, "products", "linear_fp8_scaled_mm"),
        kernel("grouped_mlp", "deep-gemm", DEEP_GEMM, "experts", "grouped_mlp_deep_gemm"),
        kernel("route", "flashinfer", FLASHINFER, "router", "route_flashinfer"),
        kernel("mla_attention", "flash-mla", FLASH_MLA, "flash_mla", "flash_mla"),
        kernel("mla_attention", "flashinfer", FLASHINFER, "flashinfer_mla", "flashinfer_mla"),
    ]


@cache
def rejection(kernel: VendorKernel, device: str) -> str | None:
    """Why a kernel cannot be used on a device, or None.

    Where the device is there, the kernel has to agree with the reference on it first.
    """
    reason = triton_table.missing(device) or kernel.package.missing(device)
    if reason is not None or not torch.cuda.is_available():
        return reason
    from leadline.kernels.vendor.proof import disagreement

    return disagreement(kernel.operation, kernel.function.load(), device)
