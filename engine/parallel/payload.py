"""Rows of several tensors as bytes, so that one collective moves all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.api import KernelSet

_GROUP = 128  # values that share a scale
_FP8 = torch.float8_e4m3fn


@dataclass(slots=True)
class Rows:
    """What travels with each token.

    Attributes:
        x_ND: activations.
        slots_NK: int32, slots of the experts that it is for; negative for none.
        weights_NK: float32, weights of these experts.
    """

    x_ND: Tensor
    slots_NK: Tensor
    weights_NK: Tensor


class Payload:
    """Packs rows of one width; activations as they are, or FP8 with a scale for 128 values."""

    def __init__(self, kernels: KernelSet, *, is_fp8: bool) -> None:
        self._kernels = kernels
        self._is_fp8 = is_fp8

    def pack(self, rows: Rows) -> Tensor:
        """Bytes, uint8 [N, B]; 255 everywhere else means no slot and NaN."""
        x_ND = rows.x_ND
        parts = [rows.slots_NK.to(torch.int32), rows.weights_NK]
        if self._is_fp8:
            values, scales = self._kernels.quantize_fp8(x_ND, "fp32")
            parts += [scales, values]
        else:
            parts.append(x_ND)
        return torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)

    def unpack(self, data_NB: Tensor, like: Rows) -> Rows:
        """The rows in such bytes; `like`: any rows with their widths and dtypes."""
        top_k, width = like.slots_NK.shape[1], like.x_ND.shape[1]
        slots, data_NB = _split(data_NB, top_k, torch.int32)
        weights, data_NB = _split(data_NB, top_k, torch.float32)
        if not self._is_fp8:
            return Rows(_split(data_NB, width, like.x_ND.dtype)[0], slots, weights)
        scales, data_NB = _split(data_NB, -(-width // _GROUP), torch.float32)
        values, _ = _split(data_NB, width, _FP8)
        factors = scales.repeat_interleave(_GROUP, dim=1)[:, :width]
        return Rows((values.float() * factors).to(like.x_ND.dtype), slots, weights)


def _split(data_NB: Tensor, num_columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    num_bytes = num_columns * dtype.itemsize
    column, rest = data_NB[:, :num_bytes], data_NB[:, num_bytes:]
    return column.clone(memory_format=torch.contiguous_format).view(dtype), rest
