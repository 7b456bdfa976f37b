"""`grouped_mlp` with FP8 experts: two grouped products, SwiGLU and quantisation between them."""

import torch
from torch import Tensor

from leadline.kernels.reference.linear import linear
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.triton.grouped_linear import can_take, grouped_linear
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.linear import linear_fp8, linear_fp8_ue8m0
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.swiglu import swiglu_fp8
from leadline.kernels.types import QuantTensor

_ONE_BY_ONE = {
    "fp32": GroupedMLP(linear, linear_fp8),
    "ue8m0": GroupedMLP(linear, linear_fp8_ue8m0),
}


def grouped_mlp(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
) -> Tensor:
    """See `api.GroupedMLP`; `activation_format` fp8 1x128, `scale_format` fp32."""
    return _compute(x_RD, counts, gate_up_E2FD, down_EDF, "fp32")


def grouped_mlp_ue8m0(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
) -> Tensor:
    """See `api.GroupedMLP`; `activation_format` fp8 1x128, `scale_format` ue8m0."""
    return _compute(x_RD, counts, gate_up_E2FD, down_EDF, "ue8m0")


def _compute(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
    scale_format: str,
) -> Tensor:
    """The experts in either format.

    Experts that are not in FP8, or that a tensor descriptor cannot take, come one after the other;
    that waits for the counts.
    """
    if (
        not isinstance(gate_up_E2FD, QuantTensor)
        or not isinstance(down_EDF, QuantTensor)
        or not can_take(gate_up_E2FD)
        or not can_take(down_EDF)
    ):
        return _ONE_BY_ONE[scale_format](x_RD, counts, gate_up_E2FD, down_EDF)
    return multiply_experts(x_RD, counts, gate_up_E2FD, down_EDF, scale_format)


def can_take_experts(gate_up_E2FD: Tensor | QuantTensor, down_EDF: Tensor | QuantTensor) -> bool:
    """Whether all experts go through one launch."""
    weights = gate_up_E2FD, down_EDF
    return all(isinstance(weight, QuantTensor) and can_take(weight) for weight in weights)


def multiply_experts(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: QuantTensor,
    down_EDF: QuantTensor,
    scale_format: str,
    block_t: int | None = None,
) -> Tensor:
    """Experts that `grouped_linear` can take, all in one launch; `block_t` is handed to it."""
    x = rows_of(x_RD)
    if x.shape[0] == 0:
        return x.new_empty(0, down_EDF.shape[1])
    rows = quantize_fp8(x, scale_format)
    return multiply_expert_rows(
        *rows, counts, gate_up_E2FD, down_EDF, x.dtype, scale_format, block_t
    )


def multiply_expert_rows(
    q_RD: Tensor,
    scales: Tensor,
    counts: Tensor,
    gate_up_E2FD: QuantTensor,
    down_EDF: QuantTensor,
    dtype: torch.dtype,
    scale_format: str,
    block_t: int | None = None,
) -> Tensor:
    """As `multiply_experts`, of rows that are quantised: [R, D] in `dtype`."""
    counts = counts.to(q_RD.device, non_blocking=True)
    hidden = grouped_linear(q_RD, scales, counts, gate_up_E2FD, dtype, block_t=block_t)
    rows = swiglu_fp8(hidden, scale_format)
    return grouped_linear(*rows, counts, down_EDF, dtype, block_t=block_t)
