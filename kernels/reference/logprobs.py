"""Log-probabilities of tokens, and the most likely ones beside them."""

import torch
from torch import Tensor


def token_logprobs(
    logits_BV: Tensor, ids_B: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `sampling_api.TokenLogprobs`."""
    logprobs_BV = logits_BV.log_softmax(-1)
    own_B = logprobs_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)
    rank_B = 1 + (logprobs_BV > own_B.unsqueeze(1)).sum(-1)
    ids, values = [], []
    left = logprobs_BV.clamp(min=torch.finfo(torch.float32).min)  # -inf marks what was taken
    for _ in range(min(num_top, left.shape[1])):
        best_B1 = left.argmax(-1, keepdim=True)  # the first of equals
        ids.append(best_B1)
        values.append(logprobs_BV.gather(1, best_B1))
        left.scatter_(1, best_B1, -torch.inf)
    empty = own_B.new_empty(len(own_B), 0)
    top_ids = torch.cat(ids, 1) if ids else empty.long()
    return own_B, rank_B, top_ids, torch.cat(values, 1) if values else empty
