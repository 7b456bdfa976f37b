"""The router's choice, and rows to experts and back."""

import struct

import torch
from torch import Tensor

from leadline.kernels.api import Permutation
from leadline.kernels.native.library import FORMATS, check_columns, check_rows, library
from leadline.kernels.types import RouterConfig

_pack = struct.Struct("=qqqqqqd").pack


def pack_router(config: RouterConfig) -> bytes:
    """The C struct `Router`."""
    return _pack(
        config.scoring == "softmax",
        config.num_groups,
        min(config.num_top_groups, config.num_groups),
        config.top_k,
        config.group_score == "top2_sum",
        config.renormalize,
        config.scaling_factor,
    )


def route(logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig) -> tuple[Tensor, Tensor]:
    """See `api.Route`."""
    num_rows, num_experts = logits_TE.shape
    if logits_TE.dtype != torch.float32 or logits_TE.requires_grad:
        raise ValueError(f"logits are {logits_TE.dtype}; the router takes float32, no gradient")
    check_columns(logits_TE, "logits")
    if num_experts % config.num_groups or not 0 < config.top_k <= num_experts:
        raise ValueError(f"{num_experts} experts do not go with {config}")
    bias = 0
    if bias_E is not None:
        if bias_E.shape != (num_experts,) or bias_E.dtype != torch.float32:
            raise ValueError(f"bias is {tuple(bias_E.shape)} of {bias_E.dtype}")
        check_columns(bias_E, "bias")
        bias = bias_E.data_ptr()
    ids_TK = torch.empty(num_rows, config.top_k, dtype=torch.int64)
    weights_TK = torch.empty(num_rows, config.top_k)
    router = pack_router(config)
    library().route(
        logits_TE.data_ptr(),
        num_rows,
        logits_TE.stride(0),
        num_experts,
        bias,
        router,
        ids_TK.data_ptr(),
        weights_TK.data_ptr(),
    )
    return ids_TK, weights_TK


def permute(x_TD: Tensor, ids_TK: Tensor, num_experts: int) -> tuple[Tensor, Permutation]:
    """See `api.Permute`."""
    check_rows(x_TD)
    num_tokens, width = x_TD.shape
    if ids_TK.dtype != torch.int64 or ids_TK.ndim != 2 or len(ids_TK) != num_tokens:
        raise ValueError(f"ids are {tuple(ids_TK.shape)} of {ids_TK.dtype} for {num_tokens} tokens")
    ids_TK = ids_TK.contiguous()
    num_rows = ids_TK.numel()
    x_RD = torch.empty(num_rows, width, dtype=x_TD.dtype)
    order_R = torch.empty(num_rows, dtype=torch.int64)
    counts = torch.zeros(num_experts, dtype=torch.int64)
    failed = library().permute(
        x_TD.data_ptr(),
        width * x_TD.itemsize,
        x_TD.stride(0) * x_TD.itemsize,
        ids_TK.data_ptr(),
        num_tokens,
        ids_TK.shape[1],
        num_experts,
        x_RD.data_ptr(),
        order_R.data_ptr(),
        counts.data_ptr(),
    )
    if failed:
        raise ValueError(f"an expert's id is not in [0, {num_experts})")
    return x_RD, Permutation(order_R, counts)


def unpermute(y_RD: Tensor, permutation: Permutation, weights_TK: Tensor) -> Tensor:
    """See `api.Unpermute`."""
    check_rows(y_RD, "y")
    num_tokens, top_k = weights_TK.shape
    order_R = permutation.order_R
    if len(y_RD) != num_tokens * top_k or order_R.shape != (len(y_RD),):
        raise ValueError(
            f"{len(y_RD)} rows and an order of {tuple(order_R.shape)} for weights of "
            f"{tuple(weights_TK.shape)}"
        )
    if weights_TK.dtype != torch.float32 or order_R.dtype != torch.int64:
        raise ValueError(f"weights are {weights_TK.dtype}, the order is {order_R.dtype}")
    weights_TK, order_R = weights_TK.contiguous(), order_R.contiguous()
    y_TD = torch.empty(num_tokens, y_RD.shape[1], dtype=y_RD.dtype)
    failed = library().unpermute(
        y_RD.data_ptr(),
        FORMATS[y_RD.dtype],
        num_tokens,
        y_RD.stride(0),
        y_RD.shape[1],
        order_R.data_ptr(),
        weights_TK.data_ptr(),
        top_k,
        y_TD.data_ptr(),
    )
    if failed:
        raise ValueError("the order is no permutation of the rows")
    return y_TD
