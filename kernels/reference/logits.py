"""What happens to logits before a token is sampled from them (order: `api.ProcessLogits`)."""

import torch
from torch import Tensor

from leadline.kernels.sampling import AllowedTokens, Penalties, SamplingBatch


def adjust_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """Allowed and banned tokens, bias and penalties; the argument itself where nobody uses them."""
    parts = (batch.allowed, batch.banned, batch.bias, batch.penalties)
    if all(part is None for part in parts):
        return logits_BV
    logits = logits_BV.clone()
    if batch.allowed is not None:
        _mask(logits, batch.allowed)
    if batch.banned is not None:
        logits[batch.banned.rows_N, batch.banned.tokens_N] = -torch.inf
    if batch.bias is not None:
        logits[batch.bias.rows_N, batch.bias.tokens_N] += batch.bias.values_N
    if batch.penalties is not None:
        logits[batch.penalties.rows_R] = _penalise(logits, batch.penalties)
    return logits


def _mask(logits_BV: Tensor, allowed: AllowedTokens) -> None:
    bits = torch.arange(32, device=logits_BV.device, dtype=torch.int32)
    is_allowed = ((allowed.words_RW.unsqueeze(-1) >> bits) & 1).bool().flatten(1)
    is_allowed = is_allowed[:, : logits_BV.shape[1]]
    rows = logits_BV[allowed.rows_R]
    logits_BV[allowed.rows_R] = rows.masked_fill(~is_allowed, -torch.inf)


def _penalise(logits_BV: Tensor, penalties: Penalties) -> Tensor:
    logits = logits_BV[penalties.rows_R]
    in_output = penalties.counts_RV > 0
    factor = torch.where(
        in_output | penalties.in_prompt_RV, penalties.repetition_R.unsqueeze(1), 1.0
    )
    logits = torch.where(logits > 0, logits / factor, logits * factor)
    logits = logits - penalties.frequency_R.unsqueeze(1) * penalties.counts_RV
    return logits - penalties.presence_R.unsqueeze(1) * in_output


def cut_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
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


def process_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `api.ProcessLogits`."""
    return cut_logits(adjust_logits(logits_BV, batch), batch)


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
