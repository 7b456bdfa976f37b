"""Log-probabilities of tokens and the most likely ones beside them, without sorting a row."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096  # tokens that the program of a row looks at together


@triton.jit
def logprobs_kernel(
    logits_ptr,
    ids_ptr,
    own_ptr,
    ranks_ptr,
    top_ids_ptr,
    top_ptr,
    stride,
    vocab_size,
    num_top,
    block: tl.constexpr,
):
    """One row a program. Each of the most likely tokens is the best of those after the last one."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * stride
    own = tl.load(row_ptr + tl.load(ids_ptr + row))
    tops = tl.full((block,), -float("inf"), tl.float32)
    for begin in range(0, vocab_size, block):
        token = begin + tl.arange(0, block)
        tops = tl.maximum(tops, tl.load(row_ptr + token, token < vocab_size, -float("inf")))
    largest = tl.max(tops, axis=0)
    sums = tl.zeros((block,), tl.float32)
    above = tl.zeros((block,), tl.int32)
    for begin in range(0, vocab_size, block):
        token = begin + tl.arange(0, block)
        x = tl.load(row_ptr + token, token < vocab_size, -float("inf"))
        sums += tl.exp(x - largest)
        above += (x > own).to(tl.int32)
    log_sum = tl.log(tl.sum(sums, axis=0))
    tl.store(own_ptr + row, own - largest - log_sum)
    tl.store(ranks_ptr + row, (1 + tl.sum(above, axis=0)).to(tl.int64))
    last, last_id = largest, -1
    for i in range(num_top):
        best = tl.full((block,), -float("inf"), tl.float32)
        best_ids = tl.full((block,), 0, tl.int32) + vocab_size
        for begin in range(0, vocab_size, block):
            token = begin + tl.arange(0, block)
            is_token = token < vocab_size
            x = tl.load(row_ptr + token, is_token, -float("inf"))
            is_left = is_token & ((x < last) | ((x == last) & (token > last_id)))
            is_better = is_left & ((x > best) | (best_ids == vocab_size))
            best_ids = tl.where(is_better, token, best_ids)
            best = tl.where(is_better, x, best)
        last = tl.max(best, axis=0)
        # Of a row with a NaN none may be left: an id that there is, all the same.
        last_id = tl.min(tl.where(best == last, best_ids, vocab_size), axis=0)
        last_id = tl.minimum(last_id, vocab_size - 1)
        tl.store(top_ids_ptr + row * num_top + i, last_id.to(tl.int64))
        tl.store(top_ptr + row * num_top + i, last - largest - log_sum)


def token_logprobs(
    logits_BV: Tensor, ids_B: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `sampling_api.TokenLogprobs`; ranks go by the logits themselves."""
    logits = logits_BV if logits_BV.stride(-1) == 1 else logits_BV.contiguous()
    num_rows, vocab_size = logits.shape
    num_top, device = min(num_top, vocab_size), logits.device
    own = torch.empty(num_rows, device=device)
    ranks = torch.empty(num_rows, dtype=torch.int64, device=device)
    top_ids = torch.empty(num_rows, num_top, dtype=torch.int64, device=device)
    top = torch.empty(num_rows, num_top, device=device)
    if num_rows:
        logprobs_kernel[(num_rows,)](
            logits,
            ids_B.contiguous(),
            own,
            ranks,
            top_ids,
            top,
            logits.stride(0),
            vocab_size,
            num_top,
            block=BLOCK,
            num_warps=8,
        )
    return own, ranks, top_ids, top
