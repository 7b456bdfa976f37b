"""Merge of two attention results over disjoint keys."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def merge_kernel(
    o1_ptr, lse1_ptr, o2_ptr, lse2_ptr, o_ptr, lse_ptr, num_columns, columns: tl.constexpr
):
    """One (token, head) a program."""
    row = tl.program_id(0).to(tl.int64)
    lse1, lse2 = tl.load(lse1_ptr + row), tl.load(lse2_ptr + row)
    top = tl.maximum(lse1, lse2)
    base = tl.where(top == -float("inf"), 0.0, top)
    share1, share2 = tl.exp(lse1 - base), tl.exp(lse2 - base)
    total = share1 + share2
    column = tl.arange(0, columns)
    mask = column < num_columns
    o1 = tl.load(o1_ptr + row * num_columns + column, mask, 0.0)
    o2 = tl.load(o2_ptr + row * num_columns + column, mask, 0.0)
    o = (share1 * o1 + share2 * o2) / tl.where(total == 0.0, 1.0, total)
    tl.store(o_ptr + row * num_columns + column, o, mask)
    tl.store(lse_ptr + row, tl.where(total == 0.0, -float("inf"), base + tl.log(total)))


def merge_attention(
    o1_THV: Tensor, lse1_TH: Tensor, o2_THV: Tensor, lse2_TH: Tensor
) -> tuple[Tensor, Tensor]:
    """See `api.MergeAttention`."""
    o, lse = torch.empty_like(o1_THV).contiguous(), torch.empty_like(lse1_TH).contiguous()
    if o.numel():
        num_columns = o.shape[-1]
        merge_kernel[(lse.numel(),)](
            o1_THV.contiguous(),
            lse1_TH.contiguous(),
            o2_THV.contiguous(),
            lse2_TH.contiguous(),
            o,
            lse,
            num_columns,
            columns=triton.next_power_of_2(num_columns),
            num_warps=1,
        )
    return o, lse
