"""Reads the weights that a rank needs."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.types import QuantTensor
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.errors import CheckpointError
from leadline.loader.model_config import ModelConfig
from leadline.loader.sharding import ShardPlan, Slices, is_routed_expert, scale_slices
from leadline.loader.tensor_specs import SCALE_SUFFIX, expected_tensors, mtp_prefix

logger = logging.getLogger(__name__)

_LAYERS = "model.layers."

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


class StoredWeights(Mapping[str, Tensor | QuantTensor]):
    """A rank's tensors by checkpoint name, read when they are asked for.

    Those of a layer are read each time and not kept, so that a model can be put together without
    ever being held twice; those outside the layers, and the MTP layer's own copies of them, are
    kept.

    Attributes:
        has_mtp: the MTP layer is there.
        seconds: spent on reading so far.
    """

    def __init__(
        self,
        reader: "_Reader",
        needed: Mapping[str, Slices],
        *,
        has_mtp: bool,
        progress: Progress | None,
    ) -> None:
        self.has_mtp = has_mtp
        self.seconds = 0.0
        self._reader = reader
        self._needed = dict(needed)
        self._progress = progress
        self._total_bytes = sum(reader.size_bytes(*item) for item in needed.items())
        self._kept: dict[str, Tensor | QuantTensor] = {}

    def __getitem__(self, name: str) -> Tensor | QuantTensor:
        if name in self._kept:
            return self._kept[name]
        started_s = time.perf_counter()
        tensor = self._reader.read(name, self._needed[name])
        self.seconds += time.perf_counter() - started_s
        if not name.startswith(_LAYERS):
            self._kept[name] = tensor
        if self._progress is not None:
            self._progress(self._reader.num_bytes, self._total_bytes)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._needed

    def __iter__(self) -> Iterator[str]:
        return iter(self._needed)

    def __len__(self) -> int:
        return len(self._needed)

    @property
    def num_bytes(self) -> int:
        """Read so far."""
        return self._reader.num_bytes

    def log_speed(self) -> None:
        """Tell the log how fast it went."""
        logger.info(
            "loaded %.1f MB in %.2f s (%.2f GB/s)",
            self.num_bytes / 1e6,
            self.seconds,
            self.num_bytes / 1e9 / max(self.seconds, 1e-9),
        )

    def drop_equal_copies(self, config: ModelConfig) -> None:
        """Keep the MTP layer's embedding and head only where they differ from the main model's."""
        head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
        for copy, main in (
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("shared_head.head.weight", head),
        ):
            name = mtp_prefix(config) + copy
            if name not in self or main not in self:
                continue
            own, original = self[name], self[main]
            if isinstance(own, Tensor) and isinstance(original, Tensor):
                if torch.equal(own, original):
                    del self._needed[name]
                else:
                    self._kept[name] = own


def load_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    plan: ShardPlan | None = None,
    *,
    dtype: torch.dtype | None = None,
    dequantize: bool | Callable[[str], bool] = False,
    progress: Progress | None = None,
) -> Weights:
    """Check a checkpoint against its config, then read all of a rank's plan; see `open_weights`."""
    stored = open_weights(
        checkpoint, config, plan, dtype=dtype, dequantize=dequantize, progress=progress
    )
    tensors = dict(stored)
    stored.log_speed()
    return Weights(tensors, stored.has_mtp, stored.num_bytes, stored.seconds)


def open_weights(
    checkpoint: Checkpoint,
    config: ModelConfig,
    plan: ShardPlan | None = None,
    *,
    dtype: torch.dtype | None = None,
    dequantize: bool | Callable[[str], bool] = False,
    with_mtp: bool = True,
    mapped_experts: bool = False,
    progress: Progress | None = None,
) -> StoredWeights:
    """Check a checkpoint against its config, and have the slices of this rank's plan at hand.

    Args:
        checkpoint: where to read.
        config: what the tensors must be.
        plan: this rank's share; everything if None.
        dtype: of the matrices that are not FP8, and of dequantised ones; as stored if None.
            Vectors (norms, correction biases) and the router are float32.
        dequantize: turn FP8 weights into `dtype` (float32 if None): all, none, or those with such
            names.
        with_mtp: the MTP layer too, where there is one.
        mapped_experts: routed experts' weights are views of the files where they need no change,
            for a caller that copies them at once.
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
    needed = {
        name: slices
        for name, spec in expected_tensors(config).items()
        if name in checkpoint.tensors
        and (with_mtp or not name.startswith(mtp_prefix(config)))
        and (slices := plan.slices(name, spec.shape)) is not None
    }
    widens = dequantize if callable(dequantize) else lambda name: bool(dequantize)
    weights = StoredWeights(
        _Reader(checkpoint, dtype, dequantize=widens, mapped_experts=mapped_experts),
        needed,
        has_mtp=with_mtp and checkpoint.has_mtp(config),
        progress=progress,
    )
    weights.drop_equal_copies(config)
    return weights


class _Reader:
    """Reads slices in the wanted form and counts their bytes."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None,
        *,
        dequantize: Callable[[str], bool],
        mapped_experts: bool,
    ) -> None:
        self._checkpoint = checkpoint
        self._mapped_experts = mapped_experts
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
            if not self._dequantize(name):
                return quantized
            return quantized.dequantize(self._dtype or torch.float32)
        if data.dim() == 1 or name.endswith(".gate.weight"):
            return data.to(torch.float32)
        return data if self._dtype is None else data.to(self._dtype)

    def _fetch(self, name: str, slices: Slices) -> Tensor:
        is_mapped = self._mapped_experts and is_routed_expert(name)
        read = self._checkpoint.view if is_mapped else self._checkpoint.read
        data = read(name, slices)
        self.num_bytes += data.numel() * data.element_size()
        return data
