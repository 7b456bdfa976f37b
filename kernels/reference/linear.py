"""Matrix products with dense and FP8 block-scaled weights."""

import torch
from torch import Tensor

from leadline.kernels.reference.quant import dequantize_groups, quantize_fp8
from leadline.kernels.types import QuantTensor


def linear(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """See `api.Linear`."""
    return x_TK @ weight_NK.T


def vocab_logits(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """See `api.VocabLogits`."""
    return hidden_TD.float() @ head_VD.float().T


def router_logits(x_TD: Tensor, gate_ED: Tensor) -> Tensor:
    """See `api.RouterLogits`."""
    return linear(x_TD.float(), gate_ED)


def linear_fp8(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` none."""
    return (x_TK.float() @ weight_NK.dequantize(torch.float32).T).to(x_TK.dtype)


def linear_fp8_1x128(x_TK: Tensor, weight_NK: QuantTensor, scale_format: str = "fp32") -> Tensor:
    """See `api.LinearFP8`; `activation_format` fp8 1x128 (DeepSeek-V3, section 3.3.2)."""
    quantized, scales = quantize_fp8(x_TK, scale_format)
    return linear_fp8(dequantize_groups(quantized, scales), weight_NK).to(x_TK.dtype)


def linear_fp8_1x128_ue8m0(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` fp8 1x128, scales rounded to powers of two."""
    return linear_fp8_1x128(x_TK, weight_NK, "ue8m0")
