"""Which drafts are accepted."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def accept_kernel(
    drafts_ptr,
    sampled_ptr,
    num_drafts_ptr,
    accepted_ptr,
    drafts_stride,
    sampled_stride,
    columns: tl.constexpr,
):
    """One request a program: the first place whose draft is missing or was not sampled."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, columns)
    num_drafts = tl.load(num_drafts_ptr + row).to(tl.int32)
    is_draft = place < num_drafts
    drafts = tl.load(drafts_ptr + row * drafts_stride + place, is_draft, 0)
    sampled = tl.load(sampled_ptr + row * sampled_stride + place, is_draft, 1)
    first_wrong = tl.min(tl.where(drafts == sampled, columns, place), axis=0)
    tl.store(accepted_ptr + row, tl.minimum(first_wrong, num_drafts).to(tl.int64))


def count_accepted(drafts_BN: Tensor, sampled_BN: Tensor, num_drafts_B: Tensor) -> Tensor:
    """See `sampling_api.CountAccepted`."""
    num_rows, width = drafts_BN.shape
    drafts = drafts_BN if drafts_BN.stride(-1) == 1 else drafts_BN.contiguous()
    sampled = sampled_BN if sampled_BN.stride(-1) == 1 else sampled_BN.contiguous()
    accepted = torch.zeros(num_rows, dtype=torch.int64, device=drafts.device)
    if num_rows and width:
        accept_kernel[(num_rows,)](
            drafts,
            sampled,
            num_drafts_B.contiguous(),
            accepted,
            drafts.stride(0),
            sampled.stride(0),
            columns=triton.next_power_of_2(width),
            num_warps=1,
        )
    return accepted
