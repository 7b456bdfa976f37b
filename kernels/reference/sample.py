"""Sampling by the Gumbel-max trick over processed logits."""

import torch
from torch import Tensor

from leadline.kernels.reference.logits import adjust_logits, cut_logits
from leadline.kernels.sampling import NAN_LOGITS, NO_TOKEN, SamplingBatch, gumbel_noise


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.Sample`."""
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


def sample_shard(logits_BV: Tensor, batch: SamplingBatch, first_id: int) -> tuple[Tensor, Tensor]:
    """See `sampling_api.SampleShard`."""
    greedy = (batch.temperature_B == 0).unsqueeze(1)
    temperature_B1 = torch.where(greedy, 1.0, batch.temperature_B.unsqueeze(1))
    noise = gumbel_noise(batch.seeds_B, batch.positions_B, logits_BV.shape[1], first_id)
    noisy = torch.where(greedy, logits_BV, logits_BV / temperature_B1 + noise)
    best_B1 = noisy.argmax(-1, keepdim=True)  # the first of equals
    return noisy.gather(1, best_B1).squeeze(1), first_id + best_B1.squeeze(1)


def merge_shards(values_SB: Tensor, ids_SB: Tensor) -> Tensor:
    """See `sampling_api.MergeShards`."""
    best_1B = values_SB.argmax(0, keepdim=True)
    ids = ids_SB.gather(0, best_1B).squeeze(0)
    return ids.masked_fill(values_SB.isnan().any(0), NAN_LOGITS)
