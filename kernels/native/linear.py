"""Products with float32, bfloat16 and FP8 block-scaled weights."""

import torch
from torch import Tensor

from leadline.kernels.native.library import FORMATS, check_rows, library, pack_weight
from leadline.kernels.types import QuantTensor


def linear(x_TK: Tensor, weight_NK: Tensor | QuantTensor) -> Tensor:
    """See `api.Linear` and `api.LinearFP8`; `activation_format` none."""
    return _product(x_TK, weight_NK, x_TK.dtype)


def vocab_logits(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """See `api.VocabLogits`."""
    return _product(hidden_TD, head_VD, torch.float32)


def router_logits(x_TD: Tensor, gate_ED: Tensor) -> Tensor:
    """See `api.RouterLogits`."""
    return _product(x_TD, gate_ED, torch.float32)


def _product(x_TK: Tensor, weight_NK: Tensor | QuantTensor, dtype: torch.dtype) -> Tensor:
    check_rows(x_TK)
    num_rows, depth = x_TK.shape
    num_columns, weight_depth = weight_NK.shape
    if depth != weight_depth:
        raise ValueError(f"x has {depth} columns, the weight {weight_depth}")
    y_TN = torch.empty(num_rows, num_columns, dtype=dtype)
    library().linear(
        x_TK.data_ptr(),
        FORMATS[x_TK.dtype],
        num_rows,
        x_TK.stride(0),
        pack_weight(weight_NK),
        num_columns,
        y_TN.data_ptr(),
        FORMATS[dtype],
        torch.get_num_threads(),
    )
    return y_TN
