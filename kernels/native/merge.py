"""Two attention results over disjoint key sets made one."""

import torch
from torch import Tensor

from leadline.kernels.native.library import library


def merge_attention(
    o1_THV: Tensor, lse1_TH: Tensor, o2_THV: Tensor, lse2_TH: Tensor
) -> tuple[Tensor, Tensor]:
    """See `api.MergeAttention`."""
    parts = o1_THV, lse1_TH, o2_THV, lse2_TH
    shapes = [o1_THV.shape, o1_THV.shape[:-1]] * 2
    if [part.shape for part in parts] != shapes or any(p.dtype != torch.float32 for p in parts):
        kinds = ", ".join(f"{tuple(part.shape)} of {part.dtype}" for part in parts)
        raise ValueError(f"the parts are {kinds}; both have to be float32 [T, H, V] and [T, H]")
    tensors = [part.contiguous() for part in parts]
    o, lse = torch.empty_like(tensors[0]), torch.empty_like(tensors[1])
    library().merge_attention(
        *(tensor.data_ptr() for tensor in tensors),
        lse.numel(),
        o.shape[-1],
        o.data_ptr(),
        lse.data_ptr(),
        torch.get_num_threads(),
    )
    return o, lse
