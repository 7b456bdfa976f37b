"""A checkpoint's safetensors files: what they hold, checked before a weight is read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from leadline.kernels.types import BLOCK
from leadline.loader.errors import CheckpointError
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
_FLOATS = ("F32", "BF16", "F16")
_FP8 = "F8_E4M3"
_SCALES = ("F32", "F8_E8M0")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and what its header says.

    Attributes:
        dtype: safetensors' name of it, for example `BF16` or `F8_E4M3`.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str


class Checkpoint:
    """The tensors of a directory; headers are read at once, data only by `read`."""

    def __init__(self, directory: Path, tensors: Mapping[str, StoredTensor]) -> None:
        self.directory = directory
        self.tensors = tensors
        self._open_files: dict[Path, Any] = {}

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Read the headers of all files.

        Raises:
            CheckpointError: no safetensors, an index that names absent files or tensors, or files
                that are damaged; lists all problems.
        """
        problems: list[str] = []
        index = _read_index(directory, problems)
        files = sorted(set(index.values())) if index is not None else [SINGLE_FILE]
        tensors: dict[str, StoredTensor] = {}
        for name in files:
            _read_header(directory / name, tensors, problems)
        if index is not None:
            _compare_with_index(index, tensors, problems)
        if problems:
            raise CheckpointError(directory, problems)
        return cls(directory, tensors)

    def has_mtp(self, config: ModelConfig) -> bool:
        """Whether any tensor of the announced MTP layer is here."""
        announced = config.num_nextn_predict_layers > 0
        return announced and any(name.startswith(mtp_prefix(config)) for name in self.tensors)

    def check(self, config: ModelConfig) -> list[str]:
        """Everything that does not fit the config; empty for a checkpoint that can be served."""
        expected = expected_tensors(config)
        if not self.has_mtp(config):
            prefix = mtp_prefix(config)
            expected = {n: s for n, s in expected.items() if not n.startswith(prefix)}
        problems = []
        scales = set()
        for name, spec in expected.items():
            stored = self.tensors.get(name)
            if stored is None:
                if not spec.optional:
                    problems.append(f"{name} is missing; expected shape {list(spec.shape)}")
                continue
            problems += self._check_tensor(name, spec, stored, config)
            if stored.dtype == _FP8:
                scales.add(name + SCALE_SUFFIX)
        known = expected.keys() | scales
        problems += [
            f"{name} is unexpected; config.json knows no such tensor"
            for name in sorted(self.tensors)
            if name not in known and not name.endswith(IGNORED_SUFFIXES)
        ]
        return problems

    def _check_tensor(
        self, name: str, spec: TensorSpec, stored: StoredTensor, config: ModelConfig
    ) -> list[str]:
        if stored.shape != spec.shape:
            return [
                f"{name} has shape {list(stored.shape)}; expected {list(spec.shape)} by config.json"
            ]
        if stored.dtype in _FLOATS:
            return []
        if stored.dtype != _FP8 or not spec.quantized:
            allowed = [*_FLOATS, _FP8] if spec.quantized else [*_FLOATS]
            return [f"{name} has dtype {stored.dtype}; expected {', '.join(allowed)}"]
        if config.fp8 is None:
            return [f"{name} has dtype {_FP8}, but config.json has no quantization_config"]
        return self._check_scale(name + SCALE_SUFFIX, spec)

    def _check_scale(self, name: str, spec: TensorSpec) -> list[str]:
        shape = tuple(-(-size // BLOCK) for size in spec.shape)
        stored = self.tensors.get(name)
        if stored is None:
            return [f"{name} is missing; an FP8 weight needs its scales, shape {list(shape)}"]
        if stored.shape != shape:
            return [f"{name} has shape {list(stored.shape)}; expected {list(shape)}"]
        if stored.dtype not in _SCALES:
            return [f"{name} has dtype {stored.dtype}; expected {', '.join(_SCALES)}"]
        return []

    def read(self, name: str, slices: tuple[slice, ...] | None = None) -> Tensor:
        """A tensor, or only a part of it, from its file.

        Raises:
            KeyError: no such tensor.
        """
        whole = self._file(self.tensors[name].file).get_slice(name)
        part: Tensor = whole[slices] if slices else whole[:]
        return part

    def _file(self, path: Path) -> Any:
        """The open file: its header is long, and is parsed once."""
        if path not in self._open_files:
            self._open_files[path] = safe_open(path, framework="pt")
        return self._open_files[path]


def _read_index(directory: Path, problems: list[str]) -> dict[str, str] | None:
    """Tensor name -> file name, or None for a checkpoint of a single file."""
    path = directory / INDEX_FILE
    if not path.exists():
        if not (directory / SINGLE_FILE).exists():
            raise CheckpointError(
                directory, [f"there is neither {SINGLE_FILE} nor {INDEX_FILE} in the directory"]
            )
        return None
    try:
        index = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(index, dict):
            raise TypeError("weight_map is no object")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(directory, [f"{INDEX_FILE} cannot be read: {error!r}"]) from error
    for name in sorted({str(file) for file in index.values()}):
        if not (directory / name).exists():
            problems.append(f"{INDEX_FILE} names the file {name}, which is not there")
    return {str(name): str(file) for name, file in index.items()}


def _read_header(path: Path, tensors: dict[str, StoredTensor], problems: list[str]) -> None:
    if not path.exists():
        return  # the index's check has said so
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                header = file.get_slice(name)
                shape = tuple(header.get_shape())
                tensors[name] = StoredTensor(path, shape, header.get_dtype())
    except (SafetensorError, OSError) as error:
        problems.append(f"{path.name} is damaged or truncated ({error}); fetch it again")


def _compare_with_index(
    index: Mapping[str, str], tensors: Mapping[str, StoredTensor], problems: list[str]
) -> None:
    if problems:
        return  # files are absent or damaged: what they hold is not known
    for name, file in sorted(index.items()):
        stored = tensors.get(name)
        if stored is None or stored.file.name != file:
            problems.append(f"{INDEX_FILE} has {name} in {file}, which does not hold it")
    problems += [
        f"{stored.file.name} holds {name}, which {INDEX_FILE} does not name"
        for name, stored in sorted(tensors.items())
        if name not in index
    ]
