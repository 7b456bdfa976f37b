"""Reads the weights that a rank needs."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.errors import CheckpointError
from leadline.loader.model_config import ModelConfig
from leadline.loader.sharding import ShardPlan, Slices, scale_slices
from leadline.loader.tensor_specs import SCALE_SUFFIX, expected_tensors, mtp_prefix

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes in all)."""


@dataclass(slots=True)
class Weights:
    """What was read.

    Attributes:
        tensors: by checkpoint name. FP8 weights are `QuantTensor`s unless dequantised.
        has_mtp: the MTP layer is there.
        num_bytes: read from the files.
    """

    tensors: dict[str, Tensor | QuantTensor]
    has_mtp: bool
    num_bytes: int
    seconds: float


def load_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    plan: ShardPlan | None = None,
    *,
    dtype: torch.dtype | None = None,
    dequantize: bool = False,
    progress: Progress | None = None,
) -> Weights:
    """Check a checkpoint against its config, then read only the slices of this rank's plan.

    Args:
        checkpoint: where to read.
        config: what the tensors must be.
        plan: this rank's share; everything if None.
        dtype: of the matrices that are not FP8, and of dequantised ones; as stored if None.
            Vectors (norms, correction biases) and the router are float32.
        dequantize: turn FP8 weights into `dtype` (float32 if None).
        progress: called after each tensor.

    Raises:
        CheckpointError: the tensors do not fit the config; lists all problems.
        ShardingError: the plan does not fit the model's sizes.
    """
    problems = checkpoint.check(config)
    if problems:
        raise CheckpointError(checkpoint.directory, problems)
    plan = plan or ShardPlan.solo()
    plan.check(config)
    started_s = time.perf_counter()
    reader = _Reader(checkpoint, dtype, dequantize=dequantize)
    needed = {
        name: slices
        for name, spec in expected_tensors(config).items()
        if name in checkpoint.tensors and (slices := plan.slices(name, spec.shape)) is not None
    }
    total_bytes = sum(reader.size_bytes(name, slices) for name, slices in needed.items())
    tensors: dict[str, Tensor | QuantTensor] = {}
    for name, slices in needed.items():
        tensors[name] = reader.read(name, slices)
        if progress is not None:
            progress(reader.num_bytes, total_bytes)
    _drop_equal_copies(tensors, config)
    seconds = time.perf_counter() - started_s
    logger.info(
        "loaded %.1f MB in %.2f s (%.2f GB/s)",
        reader.num_bytes / 1e6,
        seconds,
        reader.num_bytes / 1e9 / max(seconds, 1e-9),
    )
    return Weights(tensors, checkpoint.has_mtp(config), reader.num_bytes, seconds)


class _Reader:
    """Reads slices in the wanted form and counts their bytes."""

    def __init__(
        self, checkpoint: Checkpoint, dtype: torch.dtype | None, *, dequantize: bool
    ) -> None:
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._dequantize = dequantize
        self.num_bytes = 0

    def size_bytes(self, name: str, slices: Slices) -> int:
        """Bytes that `read` will fetch, those of the scales included."""
        tensors = self._checkpoint.tensors
        size = tensors[name].slice_bytes(slices)
        if not tensors[name].is_fp8:
            return size
        blocks, _ = scale_slices(slices)
        return size + tensors[name + SCALE_SUFFIX].slice_bytes(blocks)

    def read(self, name: str, slices: Slices) -> Tensor | QuantTensor:
        """One tensor of the rank."""
        data = self._fetch(name, slices)
        if data.dtype == torch.float8_e4m3fn:
            blocks, offsets = scale_slices(slices)
            scale = self._fetch(name + SCALE_SUFFIX, blocks).to(torch.float32)
            if not bool(((scale > 0) & scale.isfinite()).all()):
                problem = (
                    f"{name}{SCALE_SUFFIX} holds a scale that is not finite or not above 0; the "
                    f"weights are damaged: fetch {self._checkpoint.tensors[name].file.name} again"
                )
                raise CheckpointError(self._checkpoint.directory, [problem])
            quantized = QuantTensor(data, scale, *offsets)
            if not self._dequantize:
                return quantized
            return quantized.dequantize(self._dtype or torch.float32)
        if data.dim() == 1 or name.endswith(".gate.weight"):
            return data.to(torch.float32)
        return data if self._dtype is None else data.to(self._dtype)

    def _fetch(self, name: str, slices: Slices) -> Tensor:
        data = self._checkpoint.read(name, slices)
        self.num_bytes += data.numel() * data.element_size()
        return data


def _drop_equal_copies(tensors: dict[str, Tensor | QuantTensor], config: ModelConfig) -> None:
    """Keep the MTP layer's embedding and head only where they differ from the main model's."""
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    for copy, main in (
        ("embed_tokens.weight", "model.embed_tokens.weight"),
        ("shared_head.head.weight", head),
    ):
        name = mtp_prefix(config) + copy
        own, original = tensors.get(name), tensors.get(main)
        if isinstance(own, Tensor) and isinstance(original, Tensor) and torch.equal(own, original):
            del tensors[name]
