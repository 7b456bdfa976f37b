"""RMSNorm, alone and after the residual addition."""

import torch
from torch import Tensor

from leadline.kernels.native.library import FORMATS, check_columns, check_rows, library


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """See `api.RMSNorm`."""
    y_TD = torch.empty(x_TD.shape, dtype=x_TD.dtype)
    _run(x_TD, None, weight_D, eps, y_TD, None)
    return y_TD


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """See `api.AddRMSNorm`; both of one dtype."""
    if residual_TD.shape != x_TD.shape or residual_TD.dtype != x_TD.dtype:
        raise ValueError(
            f"x is {tuple(x_TD.shape)} of {x_TD.dtype}, its residual {tuple(residual_TD.shape)} of "
            f"{residual_TD.dtype}"
        )
    y_TD, sum_TD = torch.empty((2, *x_TD.shape), dtype=x_TD.dtype)
    _run(x_TD, residual_TD, weight_D, eps, y_TD, sum_TD)
    return y_TD, sum_TD


def _run(
    x_TD: Tensor,
    residual_TD: Tensor | None,
    weight_D: Tensor,
    eps: float,
    y_TD: Tensor,
    sum_TD: Tensor | None,
) -> None:
    check_rows(x_TD)
    num_rows, width = x_TD.shape
    if weight_D.shape != (width,) or weight_D.dtype not in FORMATS:
        raise ValueError(f"x has {width} columns, the weight is {tuple(weight_D.shape)}")
    check_columns(weight_D, "weight")
    residual = 0, 0
    if residual_TD is not None:
        check_columns(residual_TD, "residual")
        residual = residual_TD.data_ptr(), residual_TD.stride(0)
    library().rms_norm(
        x_TD.data_ptr(),
        FORMATS[x_TD.dtype],
        num_rows,
        x_TD.stride(0),
        *residual,
        weight_D.data_ptr(),
        FORMATS[weight_D.dtype],
        width,
        eps,
        y_TD.data_ptr(),
        0 if sum_TD is None else sum_TD.data_ptr(),
        torch.get_num_threads(),
    )
