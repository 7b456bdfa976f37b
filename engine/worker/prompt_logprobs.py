"""Log-probabilities of prompt tokens, in slices of bounded size."""

import torch
from torch import Tensor

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.request import TokenLogprobs
from leadline.engine.worker.requests import LiveRow
from leadline.engine.worker.sampler import token_logprobs
from leadline.kernels.api import KernelSet

MAX_LOGITS_BYTES = 64 * 2**20  # of one slice of logits


def prompt_logprobs(
    model: DeepseekModel, kernels: KernelSet, row: LiveRow, hidden_TD: Tensor, vocab_size: int
) -> list[TokenLogprobs] | None:
    """Of the prompt tokens that come after the row's tokens, those that there are.

    Args:
        model: computes logits.
        kernels: compute log-probabilities.
        row: what was computed.
        hidden_TD: hidden states of its tokens.
        vocab_size: width of the logits.

    Returns:
        One for each prompt token at positions start + 1 .. start + tokens, always of the raw
        logits; None if they were not asked for.
    """
    request = row.request
    num_top = request.params.num_prompt_logprobs
    if num_top is None:
        return None
    end = min(row.start + row.row.num_tokens + 1, request.num_prompt_tokens)
    targets = request.token_ids[row.start + 1 : end]
    slice_size = max(1, MAX_LOGITS_BYTES // (4 * vocab_size))
    found: list[TokenLogprobs] = []
    for begin in range(0, len(targets), slice_size):
        ids = torch.tensor(targets[begin : begin + slice_size])
        logits = model.compute_logits(hidden_TD[begin : begin + len(ids)])
        found += token_logprobs(kernels, logits, ids, [num_top] * len(ids))
    return found
