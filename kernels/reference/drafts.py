"""Which drafts are accepted."""

import torch
from torch import Tensor


def count_accepted(drafts_BN: Tensor, sampled_BN: Tensor, num_drafts_B: Tensor) -> Tensor:
    """See `sampling_api.CountAccepted`."""
    place = torch.arange(drafts_BN.shape[1], device=drafts_BN.device)
    is_right = (drafts_BN == sampled_BN) & (place < num_drafts_B.unsqueeze(1))
    return is_right.long().cumprod(1).sum(1)
