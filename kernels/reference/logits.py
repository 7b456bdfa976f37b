"""What happens to logits before a token is sampled; the order is `sampling_api.ProcessLogits`'s."""

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
    cut_k = (batch.top_k_B > 0) & (batch.top_k_B < logits.shape[1])
    if cut_k.any():
        logits[cut_k] = _cut_top_k(logits[cut_k], batch.top_k_B[cut_k])
    cut_p = batch.top_p_B < 1
    if cut_p.any():
        logits[cut_p] = _cut_top_p(logits[cut_p], batch.top_p_B[cut_p])
    return logits


def process_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.ProcessLogits`."""
    logits = cut_logits(adjust_logits(logits_BV, batch), batch)
    if batch.forced_B is None:
        return logits
    forced = batch.forced_B.unsqueeze(1)
    is_forced = torch.arange(logits.shape[1], device=logits.device) == forced
    certain = torch.zeros_like(logits).masked_fill(~is_forced, -torch.inf)
    return torch.where(forced >= 0, certain, logits)


def _cut_min_p(logits: Tensor, min_p_B: Tensor) -> Tensor:
    floor = logits.amax(-1) + torch.log(min_p_B)
    return logits.masked_fill(logits < floor.unsqueeze(1), -torch.inf)


def _cut_top_k(logits: Tensor, top_k_B: Tensor) -> Tensor:
    """Those that reach the k-th largest; a full sort of a large vocabulary costs 70 times more."""
    largest = logits.topk(int(top_k_B.max())).values
    kth = largest.gather(-1, top_k_B.unsqueeze(1) - 1)
    return logits.masked_fill(logits < kth, -torch.inf)


def _cut_top_p(logits: Tensor, top_p_B: Tensor) -> Tensor:
    """The smallest head of the descending logits whose probability reaches top-p."""
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    kept = torch.zeros_like(logits, dtype=torch.bool)
    kept.scatter_(-1, order, before < top_p_B.unsqueeze(1))
    return logits.masked_fill(~kept, -torch.inf)
