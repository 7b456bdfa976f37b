"""The experts' MLPs over the rows that there are."""

import torch
from torch import Tensor

from leadline.kernels.native.library import FORMATS, check_rows, library, pack_weight
from leadline.kernels.types import QuantTensor


def grouped_mlp(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
) -> Tensor:
    """See `api.GroupedMLP`; the hidden values are not rounded to the dtype of x."""
    check_rows(x_RD)
    num_rows, depth = x_RD.shape
    num_experts, num_hidden, gate_up_depth = gate_up_E2FD.shape
    if depth != gate_up_depth or down_EDF.shape != (num_experts, depth, num_hidden // 2):
        raise ValueError(
            f"x has {depth} columns, gate_up the shape {tuple(gate_up_E2FD.shape)}, down "
            f"{tuple(down_EDF.shape)}: they are [R, D], [E, 2F, D], [E, D, F]"
        )
    if counts.dtype != torch.int64 or len(counts) != num_experts:
        raise ValueError(f"counts are {len(counts)} of {counts.dtype}, not {num_experts} of int64")
    counts = counts.contiguous()
    y_RD = torch.empty(num_rows, depth, dtype=x_RD.dtype)
    failed = library().grouped_mlp(
        x_RD.data_ptr(),
        FORMATS[x_RD.dtype],
        num_rows,
        x_RD.stride(0),
        counts.data_ptr(),
        num_experts,
        pack_stack(gate_up_E2FD),
        scales_apart(gate_up_E2FD),
        pack_stack(down_EDF),
        scales_apart(down_EDF),
        y_RD.data_ptr(),
        torch.get_num_threads(),
    )
    if failed:
        raise ValueError(f"counts {counts.tolist()} do not add up to {num_rows} rows")
    return y_RD


def pack_stack(weights: Tensor | QuantTensor) -> bytes:
    """The first expert's weight; the others' follow it without a gap."""
    data = weights.data if isinstance(weights, QuantTensor) else weights
    if not data.is_contiguous():
        raise ValueError(
            f"the experts' weights of shape {tuple(data.shape)} have strides {data.stride()}: they "
            "have to be contiguous"
        )
    return pack_weight(weights)


def scales_apart(weights: Tensor | QuantTensor) -> int:
    """Scales from one expert's first to the next one's."""
    return weights.scale.stride(0) if isinstance(weights, QuantTensor) else 0


def swiglu(gate_up_T2F: Tensor) -> Tensor:
    """See `api.Swiglu`."""
    check_rows(gate_up_T2F)
    num_rows, width = gate_up_T2F.shape
    if width % 2:
        raise ValueError(f"gate and up together have {width} columns, an odd number")
    y_TF = torch.empty(num_rows, width // 2, dtype=gate_up_T2F.dtype)
    library().swiglu(
        gate_up_T2F.data_ptr(),
        FORMATS[gate_up_T2F.dtype],
        num_rows,
        gate_up_T2F.stride(0),
        width // 2,
        y_TF.data_ptr(),
        torch.get_num_threads(),
    )
    return y_TF
