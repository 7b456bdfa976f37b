"""Sampling by the Gumbel-max trick over processed logits."""

import torch
from torch import Tensor

from leadline.kernels.reference.logits import adjust_logits, cut_logits
from leadline.kernels.sampling import NAN_LOGITS, NO_TOKEN, SamplingBatch, gumbel_noise


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `api.Sample`."""
    adjusted = adjust_logits(logits_BV, batch)
    if batch.all_greedy:
        ids = adjusted.argmax(-1)
    else:
        noise = gumbel_noise(batch.seeds_B, batch.positions_B, logits_BV.shape[1])
        sampled = cut_logits(adjusted, batch) + noise
        greedy = (batch.temperature_B == 0).unsqueeze(1)
        ids = torch.where(greedy, adjusted, sampled).argmax(-1)
    if adjusted is not logits_BV:
        ids = ids.masked_fill(adjusted.amax(-1) == -torch.inf, NO_TOKEN)
    if batch.forced_B is not None:
        ids = torch.where(batch.forced_B >= 0, batch.forced_B, ids)
    return ids.masked_fill(logits_BV.isnan().any(-1), NAN_LOGITS)
