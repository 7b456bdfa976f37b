"""Sampling by the Gumbel-max trick over processed logits."""

import torch
from torch import Tensor

from leadline.kernels.sampling import SamplingBatch, gumbel_noise


def process_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """Temperature, then min-p, top-k and top-p cuts; dropped tokens are at -inf."""
    temperature = torch.where(batch.temperature_B > 0, batch.temperature_B, 1.0)
    logits = logits_BV / temperature.unsqueeze(1)
    if batch.no_cuts:
        return logits
    logits = _cut_min_p(logits, batch.min_p_B)
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    keep = _keep_top_k(ordered, batch.top_k_B) & _keep_top_p(ordered, batch)
    kept = torch.zeros_like(keep).scatter_(-1, order, keep)
    return logits.masked_fill(~kept, -torch.inf)


def _cut_min_p(logits: Tensor, min_p_B: Tensor) -> Tensor:
    floor = logits.amax(-1) + torch.log(min_p_B)
    return logits.masked_fill(logits < floor.unsqueeze(1), -torch.inf)


def _keep_top_k(ordered: Tensor, top_k_B: Tensor) -> Tensor:
    """Of descending logits: those that reach the k-th largest."""
    vocab_size = ordered.shape[-1]
    k = torch.where(top_k_B > 0, top_k_B, vocab_size).clamp(max=vocab_size)
    return ordered >= ordered.gather(-1, k.unsqueeze(1) - 1)


def _keep_top_p(ordered: Tensor, batch: SamplingBatch) -> Tensor:
    """Of descending logits: the smallest head of the top-k whose probability reaches top-p."""
    head = ordered.masked_fill(~_keep_top_k(ordered, batch.top_k_B), -torch.inf)
    probabilities = head.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    top_p = batch.top_p_B.unsqueeze(1)
    return (before < top_p) | (top_p >= 1)


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `api.Sample`."""
    invalid = logits_BV.isnan().any(-1)
    if batch.all_greedy:
        ids = logits_BV.argmax(-1)
    else:
        noise = gumbel_noise(batch.seeds_B, batch.positions_B, logits_BV.shape[1])
        sampled = process_logits(logits_BV, batch) + noise
        greedy = (batch.temperature_B == 0).unsqueeze(1)
        ids = torch.where(greedy, logits_BV, sampled).argmax(-1)
    return ids.masked_fill(invalid, -1)
