"""A checkpoint's safetensors files: what they hold, checked before a weight is read."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from leadline.kernels.types import BLOCK
from leadline.loader.errors import CheckpointError
from leadline.loader.file_faults import fault_of, safetensors_fault
from leadline.loader.model_config import ModelConfig
from leadline.loader.tensor_specs import (
    IGNORED_SUFFIXES,
    SCALE_SUFFIX,
    TensorSpec,
    expected_tensors,
    mtp_prefix,
)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MAX_MAPPED_BYTES = 128 << 20
_FP8 = "F8_E4M3"
_FLOATS = ("F32", "BF16", "F16")
_SCALES = ("F32", "F8_E8M0")
_ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, _FP8: 1, "F8_E8M0": 1}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and what its header says.

    Attributes:
        dtype: safetensors' name of it, for example `BF16` or `F8_E4M3`.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_fp8(self) -> bool:
        """Whether it holds FP8 values, which need scales."""
        return self.dtype == _FP8

    def slice_bytes(self, slices: tuple[slice, ...]) -> int:
        """Bytes of a part of it."""
        num_elements: int = math.prod(part.stop - part.start for part in slices)
        return num_elements * _ITEM_BYTES[self.dtype]


class Checkpoint:
    """The tensors of a directory; headers are read at once, data only by `read`.

    Attributes:
        tensors: by name.
        file_problems: what is wrong with the files and their index, whatever the config says.
    """

    def __init__(
        self,
        directory: Path,
        tensors: Mapping[str, StoredTensor],
        *,
        file_problems: Sequence[str] = (),
        unreadable: Collection[str] = (),
    ) -> None:
        self.directory = directory
        self.tensors = tensors
        self.file_problems = tuple(file_problems)
        # Named by the index but not to be had; `file_problems` says why.
        self._unreadable = frozenset(unreadable)
        self._open_files: dict[Path, Any] = {}
        self._mapped_bytes = 0

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read the headers of all files.

        Shards that are absent or damaged are kept as `file_problems`, so that `check` can list
        them together with what is wrong in the others.

        Raises:
            CheckpointError: nothing to read at all: no safetensors, an index that is no index, or
                a single file that is damaged or truncated.
        """
        if (directory / INDEX_FILE).exists():
            tensors, problems, unreadable = _read_shards(directory, _read_index(directory))
            return cls(directory, tensors, file_problems=problems, unreadable=unreadable)
        path = directory / SINGLE_FILE
        if not path.exists():
            raise CheckpointError(
                directory, [f"there is neither {SINGLE_FILE} nor {INDEX_FILE} in the directory"]
            )
        try:
            return cls(directory, _read_header(path))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(directory, [_damaged(path, error)]) from error

    @property
    def files(self) -> set[Path]:
        """Those that its tensors lie in."""
        return {tensor.file for tensor in self.tensors.values()}

    def has_mtp(self, config: ModelConfig) -> bool:
        """Whether any tensor of the announced MTP layer is here."""
        if config.num_nextn_predict_layers == 0:
            return False
        prefix = mtp_prefix(config)
        return any(name.startswith(prefix) for name in (*self.tensors, *self._unreadable))

    def check(self, config: ModelConfig) -> list[str]:
        """Everything that is wrong, files and tensors; empty for what can be served."""
        expected = expected_tensors(config)
        if not self.has_mtp(config):
            prefix = mtp_prefix(config)
            expected = {n: s for n, s in expected.items() if not n.startswith(prefix)}
        problems = list(self.file_problems)
        scales = set()
        for name, spec in expected.items():
            stored = self.tensors.get(name)
            if stored is None:
                if not spec.optional and name not in self._unreadable:
                    problems.append(f"{name} is missing; expected shape {list(spec.shape)}")
                continue
            problems += self._check_tensor(name, spec, stored, config)
            if stored.is_fp8:
                scales.add(name + SCALE_SUFFIX)
        return problems + self._unexpected(expected.keys() | scales, config)

    def _unexpected(self, known: Collection[str], config: ModelConfig) -> list[str]:
        names = [
            name
            for name in sorted(self.tensors)
            if name not in known
            and not name.endswith(IGNORED_SUFFIXES)
            and name.removesuffix(SCALE_SUFFIX) not in self._unreadable
        ]
        problems = []
        prefix = mtp_prefix(config)
        if config.num_nextn_predict_layers == 0 and any(n.startswith(prefix) for n in names):
            beyond = [name for name in names if name.startswith(prefix)]
            names = [name for name in names if not name.startswith(prefix)]
            problems.append(
                f"{len(beyond)} tensors of {prefix.removesuffix('.')} are unexpected, {beyond[0]} "
                f"and others: config.json has num_hidden_layers = {config.num_hidden_layers} and "
                "num_nextn_predict_layers = 0; if it is the MTP layer, the latter must be 1"
            )
        return problems + [
            f"{name} is unexpected (shape {list(self.tensors[name].shape)}); "
            "by config.json there is no such tensor"
            for name in names
        ]

    def _check_tensor(
        self, name: str, spec: TensorSpec, stored: StoredTensor, config: ModelConfig
    ) -> list[str]:
        problems = []
        if stored.shape != spec.shape:
            problems.append(
                f"{name} has shape {list(stored.shape)}; expected {list(spec.shape)} by config.json"
            )
        if stored.is_fp8 and spec.quantized:
            if config.fp8 is None:
                problems.append(
                    f"{name} has dtype {_FP8}, but config.json has no quantization_config; "
                    f"expected {', '.join(_FLOATS)}"
                )
            return problems + self._check_scale(name + SCALE_SUFFIX, spec)
        if stored.dtype not in _FLOATS:
            allowed = [*_FLOATS, _FP8] if spec.quantized else [*_FLOATS]
            problems.append(f"{name} has dtype {stored.dtype}; expected {', '.join(allowed)}")
        return problems

    def _check_scale(self, name: str, spec: TensorSpec) -> list[str]:
        shape = tuple(-(-size // BLOCK) for size in spec.shape)
        stored = self.tensors.get(name)
        if stored is None:
            if name in self._unreadable:
                return []
            return [f"{name} is missing; an FP8 weight needs its scales, shape {list(shape)}"]
        problems = []
        if stored.shape != shape:
            problems.append(
                f"{name} has shape {list(stored.shape)}; expected {list(shape)}, one scale for "
                f"each {BLOCK}x{BLOCK} block"
            )
        if stored.dtype not in _SCALES:
            problems.append(f"{name} has dtype {stored.dtype}; expected {', '.join(_SCALES)}")
        return problems

    def read(self, name: str, slices: tuple[slice, ...]) -> Tensor:
        """A part of a tensor, contiguous, in memory of its own.

        A view of the mapped file would cost nothing here and a page fault in the first step, and
        would end the process if the file were cut short under it.

        Raises:
            KeyError: no such tensor.
        """
        return self.view(name, slices).clone(memory_format=torch.contiguous_format)

    def view(self, name: str, slices: tuple[slice, ...]) -> Tensor:
        """The same in the mapped file: for what copies it at once.

        Raises:
            KeyError: no such tensor.
        """
        stored = self.tensors[name]
        if self._mapped_bytes > _MAX_MAPPED_BYTES:  # what was read of a mapped file stays in memory
            self._open_files.clear()
            self._mapped_bytes = 0
        self._mapped_bytes += stored.slice_bytes(slices)
        view: Tensor = self._file(stored.file).get_slice(name)[slices]
        return view

    def _file(self, path: Path) -> Any:
        """The open file: its header is long, and is parsed seldom."""
        if path not in self._open_files:
            self._open_files[path] = safe_open(path, framework="pt")
        return self._open_files[path]


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """What a file holds; safetensors compares the header with the file's length."""
    tensors = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a mapping)
            header = file.get_slice(name)
            tensors[name] = StoredTensor(path, tuple(header.get_shape()), header.get_dtype())
    return tensors


def _damaged(path: Path, error: Exception) -> str:
    fault = safetensors_fault(path) or f"is damaged or truncated ({error}); fetch it again"
    return f"{path.name} {fault}"


def _read_index(directory: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    try:
        index = json.loads((directory / INDEX_FILE).read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(index, dict):
            raise TypeError("weight_map is no object")
    except (OSError, ValueError, KeyError, TypeError) as error:
        fault = fault_of(directory / INDEX_FILE) or f"cannot be read: {error!r}; fetch it again"
        raise CheckpointError(directory, [f"{INDEX_FILE} {fault}"]) from error
    return {str(name): str(file) for name, file in index.items()}


def _read_shards(
    directory: Path, index: Mapping[str, str]
) -> tuple[dict[str, StoredTensor], list[str], set[str]]:
    """The tensors, what is wrong, and the names in the index that cannot be had."""
    tensors: dict[str, StoredTensor] = {}
    problems: list[str] = []
    unreadable: set[str] = set()
    for file in sorted(set(index.values())):
        named = {name for name, place in index.items() if place == file}
        if Path(file).name != file:
            problems.append(f"{INDEX_FILE} names {file!r}; allowed: files beside it")
            unreadable |= named
            continue
        try:
            held = _read_header(directory / file)
        except FileNotFoundError:
            problems.append(f"{INDEX_FILE} names the file {file}, which is not there")
            unreadable |= named
            continue
        except (SafetensorError, OSError) as error:
            problems.append(_damaged(directory / file, error))
            unreadable |= named
            continue
        for name in sorted(named - held.keys()):
            problems.append(f"{INDEX_FILE} has {name} in {file}, which does not hold it")
            unreadable.add(name)
        for name in sorted(held.keys() - named):
            place = f"has in {index[name]}" if name in index else "does not name"
            problems.append(f"{file} holds {name}, which {INDEX_FILE} {place}")
        tensors |= {name: held[name] for name in named & held.keys()}
    return tensors, problems, unreadable
