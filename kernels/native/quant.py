"""FP8 quantisation in groups along the last dimension."""

import torch
from torch import Tensor

from leadline.kernels.native.library import FORMATS, check_rows, library

GROUP = 128
SCALE_FORMATS = ("fp32", "ue8m0")


def quantize_fp8(x_TK: Tensor, scale_format: str = "fp32") -> tuple[Tensor, Tensor]:
    """See `api.QuantizeFP8`."""
    check_rows(x_TK)
    if scale_format not in SCALE_FORMATS:
        raise ValueError(f"scale_format is {scale_format!r}; there is {', '.join(SCALE_FORMATS)}")
    num_columns = x_TK.shape[-1]
    rows = x_TK.flatten(0, -2) if x_TK.ndim != 2 else x_TK
    values = torch.empty(x_TK.shape, dtype=torch.float8_e4m3fn)
    scales = torch.empty(*x_TK.shape[:-1], -(-num_columns // GROUP))
    library().quantize_fp8(
        rows.data_ptr(),
        FORMATS[rows.dtype],
        len(rows),
        rows.stride(0),
        num_columns,
        scale_format == "ue8m0",
        values.data_ptr(),
        scales.data_ptr(),
        torch.get_num_threads(),
    )
    return values, scales
