"""Value types that several operations share."""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 128


@dataclass(slots=True)
class QuantTensor:
    """FP8 e4m3 values with one float32 scale per 128x128 block (DeepSeek-V3, section 3.3.2).

    A tensor cut out of a larger one keeps the scale of every block that it touches.

    Attributes:
        data: float8_e4m3fn [..., N, K].
        scale: float32 [..., ceil((row_offset + N) / 128), ceil((col_offset + K) / 128)].
        row_offset: index of the first row inside its block, 0..127.
        col_offset: index of the first column inside its block, 0..127.
    """

    data: Tensor
    scale: Tensor
    row_offset: int = 0
    col_offset: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.data.nbytes + self.scale.nbytes

    @property
    def shape(self) -> torch.Size:
        """Shape of `data`."""
        return self.data.shape

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values, [..., N, K]."""
        rows = torch.arange(self.row_offset, self.row_offset + self.shape[-2]) // BLOCK
        columns = torch.arange(self.col_offset, self.col_offset + self.shape[-1]) // BLOCK
        device = self.data.device
        scale = self.scale.index_select(-2, rows.to(device)).index_select(-1, columns.to(device))
        return (self.data.to(torch.float32) * scale).to(dtype)


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """How experts are chosen (DeepSeek-V3, section 2.1.2; V2, section 2.2.2).

    Attributes:
        scoring: `sigmoid` or `softmax` of the router's logits.
        group_score: `top2_sum` (V3) or `max` (V2) of a group's scores; unused for one group.
        renormalize: divide the chosen scores by their sum.
    """

    scoring: str
    num_groups: int
    num_top_groups: int
    top_k: int
    group_score: str
    renormalize: bool
    scaling_factor: float
