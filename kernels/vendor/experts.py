"""`grouped_mlp` by DeepGEMM's grouped product over rows padded to its tiles."""

from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.kernels.triton.experts import grouped_mlp as triton_grouped_mlp
from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.swiglu import swiglu_fp8
from leadline.kernels.types import QuantTensor
from leadline.kernels.vendor.products import has_whole_blocks


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """Where the rows of each expert lie when each begins on a tile of its own.

    Attributes:
        place_R: int64, the padded index of each row.
        expert_M: int32, the expert of each padded row; -1 for rows that nobody computes.
    """

    place_R: Tensor
    expert_M: Tensor


def pad_rows(counts: Tensor, num_rows: int, alignment: int) -> PaddedRows:
    """On the device of `counts` [E], without waiting for it: as many rows as are ever needed."""
    num_experts = counts.shape[0]
    padded = (counts + alignment - 1) // alignment * alignment
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    experts = torch.arange(num_experts, device=counts.device)
    expert_R = experts.repeat_interleave(counts, output_size=num_rows)
    place_R = torch.arange(num_rows, device=counts.device) + shift[expert_R]
    most = num_rows + min(num_experts, num_rows) * (alignment - 1)
    num_padded = -(-most // alignment) * alignment
    expert_M = torch.full((num_padded,), -1, dtype=torch.int32, device=counts.device)
    expert_M[place_R] = expert_R.to(torch.int32)
    return PaddedRows(place_R, expert_M)


def takes(x_RD: Tensor, gate_up: Tensor | QuantTensor, down: Tensor | QuantTensor) -> bool:
    """Whether DeepGEMM computes these experts: FP8, whole blocks, rows in bfloat16."""
    return (
        isinstance(gate_up, QuantTensor)
        and isinstance(down, QuantTensor)
        and x_RD.dtype == torch.bfloat16
        and x_RD.numel() > 0
        and has_whole_blocks(gate_up)
        and has_whole_blocks(down)
    )


def grouped_mlp_deep_gemm(
    x_RD: Tensor,
    counts: Tensor,
    gate_up_E2FD: Tensor | QuantTensor,
    down_EDF: Tensor | QuantTensor,
) -> Tensor:
    """See `api.GroupedMLP`; `activation_format` fp8 1x128, `scale_format` fp32."""
    import deep_gemm

    if not takes(x_RD, gate_up_E2FD, down_EDF):
        return triton_grouped_mlp(x_RD, counts, gate_up_E2FD, down_EDF)
    assert isinstance(gate_up_E2FD, QuantTensor)
    assert isinstance(down_EDF, QuantTensor)
    x = rows_of(x_RD)
    counts = counts.to(x.device, non_blocking=True)
    rows = pad_rows(counts, x.shape[0], deep_gemm.get_mk_alignment_for_contiguous_layout())
    padded = x.new_zeros(rows.expert_M.shape[0], x.shape[1])
    padded[rows.place_R] = x
    hidden = _multiply(quantize_fp8(padded, "fp32"), gate_up_E2FD, rows.expert_M)
    y = _multiply(swiglu_fp8(hidden, "fp32"), down_EDF, rows.expert_M)
    return y[rows.place_R]


def _multiply(x: tuple[Tensor, Tensor], weight: QuantTensor, expert_M: Tensor) -> Tensor:
    import deep_gemm

    y = torch.empty(
        expert_M.shape[0], weight.shape[-2], dtype=torch.bfloat16, device=expert_M.device
    )
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
        x, (weight.data, weight.scale.contiguous()), y, expert_M, disable_ue8m0_cast=True
    )
    return y
