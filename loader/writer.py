"""Writes tensors as a checkpoint in the official format."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import INDEX_FILE, SINGLE_FILE
from leadline.loader.fp8 import quantize_blocks
from leadline.loader.model_config import ModelConfig
from leadline.loader.tensor_specs import SCALE_SUFFIX, expected_tensors

DEFAULT_SHARD_BYTES = 4 * 10**9
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Named = Iterable[tuple[str, Tensor]]
Quantize = Callable[[Tensor], QuantTensor]


def write_weights(
    directory: Path,
    config: ModelConfig,
    tensors: Named,
    *,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
    quantize: Quantize | None = None,
) -> None:
    """Write tensors in the config's own format: FP8 with scales where it says so, else its dtype.

    Never holds more than one shard. A single shard becomes `model.safetensors`; several get an
    index, and one left by an earlier checkpoint is removed. Correction biases stay float32.

    Args:
        directory: where to write; it must exist.
        config: the format.
        tensors: (name, float tensor), by the checkpoint's names; read once, one at a time.
        max_shard_bytes: a larger sum of tensors starts the next file.
        quantize: makes FP8 of a matrix; `fp8.quantize_blocks` if None.
    """
    shards: list[list[str]] = []
    pending: dict[str, Tensor] = {}
    num_bytes = total_bytes = 0
    for name, tensor in _stored(config, tensors, quantize or _quantizer(config)):
        size = tensor.numel() * tensor.element_size()
        if pending and num_bytes + size > max_shard_bytes:
            shards.append(_write_shard(directory, len(shards), pending))
            pending, num_bytes = {}, 0
        pending[name] = tensor
        num_bytes += size
        total_bytes += size
    shards.append(_write_shard(directory, len(shards), pending))
    if len(shards) == 1:
        _shard_path(directory, 0).rename(directory / SINGLE_FILE)
        (directory / INDEX_FILE).unlink(missing_ok=True)  # it would be believed first
    else:
        _write_index(directory, shards, total_bytes)


def _quantizer(config: ModelConfig) -> Quantize:
    ue8m0 = config.fp8 is not None and config.fp8.scale_fmt == "ue8m0"
    return lambda weight: quantize_blocks(weight, ue8m0=ue8m0)


def _stored(
    config: ModelConfig, tensors: Named, quantize: Quantize
) -> Iterator[tuple[str, Tensor]]:
    """Each tensor as it is stored, FP8 weights followed by their scales."""
    specs = expected_tensors(config)
    dtype = _DTYPES[config.dtype]
    for name, tensor in tensors:
        if config.fp8 is not None and specs[name].quantized:
            quantized = quantize(tensor)
            yield name, quantized.data
            yield name + SCALE_SUFFIX, quantized.scale
        elif name.endswith("e_score_correction_bias"):
            yield name, tensor.to(torch.float32).contiguous()
        else:
            yield name, tensor.to(dtype).contiguous()


def _shard_path(directory: Path, index: int) -> Path:
    return directory / f"shard-{index + 1:05}.tmp"


def _write_shard(directory: Path, index: int, tensors: dict[str, Tensor]) -> list[str]:
    save_file(tensors, _shard_path(directory, index), metadata={"format": "pt"})
    return list(tensors)


def _write_index(directory: Path, shards: list[list[str]], total_bytes: int) -> None:
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):06}.safetensors"
        _shard_path(directory, i).rename(directory / file)
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")
