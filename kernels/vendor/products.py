"""`linear_fp8` by other projects' kernels: activations fp8 1x128, float32 scales.

What they cannot take (a cut inside a block, ragged sizes, float32 results) goes to Triton's kernel.
"""

import torch
from torch import Tensor

from leadline.kernels.triton.launch import rows_of
from leadline.kernels.triton.linear import linear_fp8 as triton_linear_fp8
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.types import BLOCK, QuantTensor

_SCALE_ROWS = 4  # cuBLASLt wants the columns of the weight's scales padded to a multiple


def takes(x_TK: Tensor, weight_NK: QuantTensor) -> bool:
    """Whether all of these kernels compute a product: rows to bfloat16, whole blocks."""
    return x_TK.dtype == torch.bfloat16 and x_TK.numel() > 0 and has_whole_blocks(weight_NK)


def has_whole_blocks(weight: QuantTensor) -> bool:
    """Whether a weight, or a stack of them, was cut at blocks and lies without gaps."""
    return (
        weight.row_offset == weight.col_offset == 0
        and weight.data.is_contiguous()
        and weight.shape[-2] % BLOCK == weight.shape[-1] % BLOCK == 0
    )


def linear_fp8_scaled_mm(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; cuBLASLt's block scaling through `torch.nn.functional.scaled_mm`.

    Scales of activations lie column by column, [T, K / 128] with strides (1, T); those of the
    weight are [K / 128 padded to a multiple of 4, N / 128], column by column too.
    """
    from torch.nn.functional import ScalingType, scaled_mm

    if not takes(x_TK, weight_NK):
        return triton_linear_fp8(x_TK, weight_NK)
    quantized, scales = quantize_fp8(rows_of(x_TK), "fp32")
    padding = -weight_NK.scale.shape[-1] % _SCALE_ROWS
    y = scaled_mm(
        quantized,
        weight_NK.data.T,
        _column_major(scales),
        ScalingType.BlockWise1x128,
        torch.nn.functional.pad(weight_NK.scale, (0, padding)).T,
        ScalingType.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return y.view(*x_TK.shape[:-1], -1)


def _column_major(scales: Tensor) -> Tensor:
    """A copy [T, G] with strides (1, T); a transposed copy of one row would keep other strides."""
    return scales.new_empty(scales.shape[1], scales.shape[0]).T.copy_(scales)


def linear_fp8_flashinfer(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `fp8_blockscale_gemm_sm90`, which swaps operands below 32 rows."""
    from flashinfer.gemm import fp8_blockscale_gemm_sm90

    if not takes(x_TK, weight_NK):
        return triton_linear_fp8(x_TK, weight_NK)
    quantized, scales = quantize_fp8(rows_of(x_TK), "fp32")
    y: Tensor = fp8_blockscale_gemm_sm90(
        quantized, weight_NK.data, scales, weight_NK.scale.contiguous(), out_dtype=torch.bfloat16
    )
    return y.view(*x_TK.shape[:-1], -1)


def linear_fp8_deep_gemm(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `deep_gemm.fp8_gemm_nt`, which lays the scales out by itself."""
    import deep_gemm

    if not takes(x_TK, weight_NK):
        return triton_linear_fp8(x_TK, weight_NK)
    x = rows_of(x_TK)
    y = x.new_empty(x.shape[0], weight_NK.shape[0])
    weight = (weight_NK.data, weight_NK.scale.contiguous())
    deep_gemm.fp8_gemm_nt(quantize_fp8(x, "fp32"), weight, y, disable_ue8m0_cast=True)
    return y.view(*x_TK.shape[:-1], -1)
