"""Rotary position embedding on interleaved pairs."""

import torch
from torch import Tensor

from leadline.kernels.native.library import FORMATS, check_columns, check_rows, library


def apply_rope(x_THR: Tensor, cos_TR2: Tensor, sin_TR2: Tensor) -> Tensor:
    """See `api.ApplyRope`."""
    check_rows(x_THR)
    num_tokens, num_heads, width = x_THR.shape
    for name, table in (("cos", cos_TR2), ("sin", sin_TR2)):
        if table.shape != (num_tokens, width // 2) or table.dtype != torch.float32 or width % 2:
            raise ValueError(
                f"{name} is {tuple(table.shape)} of {table.dtype}; x of {tuple(x_THR.shape)} needs "
                f"{(num_tokens, width / 2)} of float32"
            )
        check_columns(table, name)
    y_THR = torch.empty(x_THR.shape, dtype=x_THR.dtype)
    library().rope(
        x_THR.data_ptr(),
        FORMATS[x_THR.dtype],
        num_tokens,
        x_THR.stride(0),
        x_THR.stride(1),
        num_heads,
        width,
        cos_TR2.data_ptr(),
        cos_TR2.stride(0),
        sin_TR2.data_ptr(),
        sin_TR2.stride(0),
        y_THR.data_ptr(),
        torch.get_num_threads(),
    )
    return y_THR
