"""The packages whose kernels are adapted, and why one of them cannot be used here."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Package:
    """One distribution.

    Attributes:
        module: what is imported.
        names: distributions that bring that module, the first as it is recommended.
        min_version: first version with the functions that are called, as (major, minor).
        capability: compute capability that its kernels are built for.
    """

    module: str
    names: tuple[str, ...]
    min_version: tuple[int, int]
    capability: tuple[int, int]

    def missing(self, device: str) -> str | None:
        """Why it cannot be used on a device (`cpu`, `cuda`), or None."""
        if device != "cuda":
            return f"needs a CUDA device, not {device}"
        if importlib.util.find_spec(self.module) is None:
            return f"{self.module} is not installed: pip install {self.names[0]}"
        version = self._version()
        if version is not None and version < self.min_version:
            return (
                f"{self.module} is of version {_dotted(version)}; needs {_dotted(self.min_version)}"
            )
        if torch.cuda.is_available() and torch.cuda.get_device_capability() != self.capability:
            found = _dotted(torch.cuda.get_device_capability())
            return f"needs compute capability {_dotted(self.capability)}, not {found}"
        return None

    def _version(self) -> tuple[int, int] | None:
        for name in self.names:
            try:
                digits = importlib.metadata.version(name).split(".")[:2]
                return int(digits[0]), int(digits[1])
            except (importlib.metadata.PackageNotFoundError, ValueError, IndexError):
                continue
        return None


def _dotted(pair: tuple[int, ...]) -> str:
    return ".".join(map(str, pair))


HOPPER = (9, 0)
TORCH = Package("torch", ("torch",), (2, 10), HOPPER)
FLASHINFER = Package("flashinfer", ("flashinfer-python",), (0, 7), HOPPER)
DEEP_GEMM = Package("deep_gemm", ("sgl-deep-gemm", "deep-gemm"), (0, 2), HOPPER)
FLASH_MLA = Package("flash_mla", ("sgl-flash-mla",), (1, 0), HOPPER)
