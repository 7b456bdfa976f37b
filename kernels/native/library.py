"""The built library: loaded once, or the reason why there is none."""

import ctypes
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leadline.kernels.native.presence import FOLDER, library_file
from leadline.kernels.types import QuantTensor

ABI_VERSION = 2
FORMATS = {torch.float32: 0, torch.bfloat16: 1}
FP8_FORMAT = 2
HOW_TO_BUILD = (
    "install Leadline where there is a C++ compiler (g++ or clang++), or run "
    "`python setup.py build_ext --inplace` in a checkout"
)

_POINTER, _INT, _FORMAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_ROWS = (_POINTER, _FORMAT, _INT, _INT)  # data, format, number of rows, elements from row to row
_PACKED = ctypes.c_char_p  # a C struct, packed by `struct`
_THREADS = ctypes.c_int
_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "linear": (*_ROWS, _PACKED, _INT, _POINTER, _FORMAT, _THREADS),
    "grouped_mlp": (*_ROWS, _POINTER, _INT, _PACKED, _INT, _PACKED, _INT, _POINTER, _THREADS),
    "rms_norm": (
        *(*_ROWS, _POINTER, _INT, _POINTER, _FORMAT, _INT),
        *(ctypes.c_double, _POINTER, _POINTER, _THREADS),
    ),
    "rope": (*_ROWS, _INT, _INT, _INT, _POINTER, _INT, _POINTER, _INT, _POINTER, _THREADS),
    "swiglu": (*_ROWS, _INT, _POINTER, _THREADS),
    "route": (_POINTER, _INT, _INT, _INT, _POINTER, _PACKED, _POINTER, _POINTER),
    "permute": (_POINTER, _INT, _INT, _POINTER, _INT, _INT, _INT, _POINTER, _POINTER, _POINTER),
    "unpermute": (*_ROWS, _INT, _POINTER, _POINTER, _INT, _POINTER),
    "write_latent": (
        *(*_ROWS, _INT, _POINTER, _INT, _INT),
        *(_POINTER, _INT, _POINTER, _FORMAT, _INT),
    ),
    "read_latent": (
        *(_POINTER, _FORMAT, _INT, _INT, _INT, _INT, _INT),
        *(_POINTER, _INT, _POINTER, _THREADS),
    ),
    "quantize_fp8": (*_ROWS, _INT, _FORMAT, _POINTER, _POINTER, _THREADS),
    "merge_attention": (*([_POINTER] * 4), _INT, _INT, _POINTER, _POINTER, _THREADS),
    "process_logits": (
        *(_POINTER, _INT, _INT, _INT, _PACKED, _FORMAT),
        *(_POINTER, _POINTER, _THREADS),
    ),
    "token_logprobs": (
        *(_POINTER, _INT, _INT, _INT, _POINTER, _INT),
        *(_POINTER, _POINTER, _POINTER, _POINTER, _THREADS),
    ),
    "mla": (_PACKED, _THREADS),
    "run_stack": (_PACKED, _PACKED, _POINTER, _POINTER, _POINTER, _THREADS),
    "run_mtp": (*(_PACKED, _PACKED, _PACKED), *(_POINTER,) * 4, _THREADS),
    "write_mtp": (_PACKED, _PACKED, _PACKED, _POINTER, _POINTER, _THREADS),
    "draft": (_PACKED, _PACKED, _PACKED, _PACKED, _THREADS),
    "sample": (_POINTER, _POINTER, _INT, _INT, _INT, _PACKED, _FORMAT, _POINTER, _THREADS),
    "gumbel_noise": (_INT, _INT, _INT, _POINTER),
    "multiply_alone": (_INT, _THREADS),
}
_pack = struct.Struct("=QqqqQqqq").pack


class Library:
    """The library's functions by name; each returns 0, or 1 for values that it cannot take."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or AttributeError where it cannot be used."""
        self._library = ctypes.CDLL(str(path))
        self._library.leadline_instructions.restype = ctypes.c_char_p
        if self._library.leadline_abi_version() != ABI_VERSION:
            raise OSError("it was built from another version of the sources")
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, f"leadline_{name}")
            function.argtypes = arguments
            setattr(self, name, function)

    @property
    def instructions(self) -> str:
        """The instruction set in use, for people."""
        name: bytes = self._library.leadline_instructions()
        return name.decode()

    def limit_instructions(self, level: int) -> None:
        """For tests: 0 portable, 1 up to AVX2, 2 the best that the machine has."""
        self._library.leadline_limit_instructions(level)

    def __getattr__(self, name: str) -> Any:
        """Of a name that is no function of the library; says so to type checkers as well."""
        raise AttributeError(name)


def load(folder: Path) -> tuple[Library | None, str]:
    """The library in a folder, or why there is none."""
    found = library_file(folder)
    if found is None:
        return None, f"not built: {HOW_TO_BUILD}"
    try:
        return Library(found), ""
    except (OSError, AttributeError) as error:
        return None, f"{found.name} cannot be used ({error}): {HOW_TO_BUILD}"


LIBRARY, MISSING = load(FOLDER)


def library() -> Library:
    """The library; who calls a kernel has seen that it is not rejected."""
    assert LIBRARY is not None, MISSING
    return LIBRARY


def pack_weight(weight: Tensor | QuantTensor) -> bytes:
    """The C struct `Weight` of the last two dimensions of a weight."""
    if isinstance(weight, QuantTensor):
        data, scale = weight.data, weight.scale
        check_columns(data, "weight")
        check_columns(scale, "scale")
        return _pack(
            data.data_ptr(),
            FP8_FORMAT,
            data.shape[-1],
            data.stride(-2),
            scale.data_ptr(),
            scale.stride(-2),
            weight.row_offset,
            weight.col_offset,
        )
    check_columns(weight, "weight")
    return _pack(
        weight.data_ptr(), FORMATS[weight.dtype], weight.shape[-1], weight.stride(-2), 0, 0, 0, 0
    )


def check_columns(tensor: Tensor, name: str) -> None:
    """Raises ValueError unless the last dimension is contiguous."""
    if tensor.stride(-1) != 1 and tensor.shape[-1] != 1:
        raise ValueError(
            f"{name} of shape {tuple(tensor.shape)} has strides {tensor.stride()}: the last "
            "dimension has to be contiguous"
        )


def check_rows(x: Tensor, name: str = "x") -> None:
    """What the kernels need of activations.

    Raises:
        ValueError: not contiguous rows of float32 or bfloat16 on the CPU, or a gradient is wanted.
    """
    if x.dtype not in FORMATS or x.device.type != "cpu":
        raise ValueError(
            f"{name} is {x.dtype} on {x.device}; these kernels take float32 and bfloat16 on cpu"
        )
    if x.requires_grad:
        raise ValueError(f"{name} wants a gradient; only the reference kernels have one")
    check_columns(x, name)
