"""Logits as tokens are sampled from them: rules, temperature and cuts, without a word to the host.

Cuts sort nothing. The k-th largest value, and the one at which the probability of all larger ones
reaches top-p, are found four bits at a time: each pass over a row adds up what is at or above each
of sixteen candidates.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.sampling import SamplingBatch

BLOCK = 4096  # tokens of a program
CUT_BLOCK = 1024  # tokens that the one program of a row compares with 16 candidates at a time
CUT_WARPS = 16


@triton.jit
def mask_kernel(
    logits_ptr, rows_ptr, words_ptr, stride, words_stride, vocab_size, block: tl.constexpr
):
    """Program (r, p): tokens of part p whose bit is not set go to -inf."""
    rule = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * block + tl.arange(0, block)
    is_token = token < vocab_size
    word = tl.load(words_ptr + rule * words_stride + token // 32, is_token, -1)
    is_banned = ((word >> (token % 32)) & 1) == 0
    row = tl.load(rows_ptr + rule)
    tl.store(logits_ptr + row * stride + token, -float("inf"), is_token & is_banned)


@triton.jit
def penalise_kernel(
    logits_ptr,
    rows_ptr,
    repetition_ptr,
    frequency_ptr,
    presence_ptr,
    counts_ptr,
    in_prompt_ptr,
    stride,
    vocab_size,
    block: tl.constexpr,
):
    """Program (r, p): part p of row `rows[r]`, in place."""
    rule = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * block + tl.arange(0, block)
    is_token = token < vocab_size
    logits_ptr += tl.load(rows_ptr + rule) * stride + token
    logits = tl.load(logits_ptr, is_token, 0.0)
    counts = tl.load(counts_ptr + rule * vocab_size + token, is_token, 0)
    in_prompt = tl.load(in_prompt_ptr + rule * vocab_size + token, is_token, 0)
    is_seen = (counts > 0) | (in_prompt != 0)
    factor = tl.where(is_seen, tl.load(repetition_ptr + rule), 1.0)
    logits = tl.where(logits > 0, tl.div_rn(logits, factor), logits * factor)
    logits -= tl.load(frequency_ptr + rule) * counts.to(tl.float32)
    logits -= tl.load(presence_ptr + rule) * (counts > 0).to(tl.float32)
    tl.store(logits_ptr, logits, is_token)


@triton.jit
def scale_kernel(x_ptr, temperatures_ptr, y_ptr, x_stride, vocab_size, block: tl.constexpr):
    """Program (b, p): part p of row b divided by its temperature; 0 counts as 1."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * block + tl.arange(0, block)
    is_token = token < vocab_size
    temperature = tl.load(temperatures_ptr + row)
    divisor = tl.where(temperature > 0, temperature, 1.0)
    x = tl.load(x_ptr + row * x_stride + token, is_token, 0.0)
    y = tl.div_rn(x, tl.zeros_like(x) + divisor)
    tl.store(y_ptr + row * vocab_size + token, y, is_token)


@triton.jit
def force_kernel(logits_ptr, forced_ptr, vocab_size, block: tl.constexpr):
    """Program (b, p): where a token is forced, it is at 0 and all others are at -inf."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * block + tl.arange(0, block)
    forced = tl.load(forced_ptr + row)
    certain = tl.where(token == forced, 0.0, -float("inf"))
    tl.store(logits_ptr + row * vocab_size + token, certain, (token < vocab_size) & (forced >= 0))


@triton.jit
def _key(x):
    """Uint32 that order as float32 values do; NaN is the largest of all."""
    bits = tl.where(x == 0, 0.0, x).to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, ~bits, bits ^ -2147483648)
    return tl.where(x != x, -1, key).to(tl.uint32, bitcast=True)


@triton.jit
def _weight(x, key, floor, largest, by_mass: tl.constexpr):
    """What a token counts: its share of probability, not normed, or 1; 0 below the floor."""
    weight = tl.exp(x - largest) if by_mass else tl.zeros_like(x) + 1.0
    return tl.where(key >= floor, weight, 0.0)


@triton.jit
def _threshold(
    row_ptr, vocab_size, floor, largest, wanted, by_mass: tl.constexpr, block: tl.constexpr
):
    """(largest key at or above which tokens weigh as much as is wanted, that weight).

    `wanted` is a number of tokens, or, by mass, a share of that of all.
    """
    digit = tl.arange(0, 16).to(tl.uint32)
    key = floor * 0
    for i in tl.static_range(8):
        candidates = key + (digit << (28 - 4 * i))
        weights = tl.zeros((block, 16), tl.float32)
        for begin in range(0, vocab_size, block):
            token = begin + tl.arange(0, block)
            x = tl.load(row_ptr + token, token < vocab_size, -float("inf"))
            x_key = _key(x)
            weight = _weight(x, x_key, floor, largest, by_mass)
            weight = tl.where(token < vocab_size, weight, 0.0)
            weights += tl.where(x_key[:, None] >= candidates[None, :], weight[:, None], 0.0)
        sums = tl.sum(weights, axis=0)
        if by_mass and i == 0:
            wanted *= tl.max(sums, axis=0)
        best = tl.max(tl.where(sums >= wanted, digit, 0), axis=0)
        key += best << (28 - 4 * i)
    return key, wanted


@triton.jit
def cut_kernel(
    logits_ptr,
    log_min_ps_ptr,
    top_ks_ptr,
    top_ps_ptr,
    vocab_size,
    block: tl.constexpr,
):
    """Program b: min-p, top-k and top-p of row b, in place."""
    row = tl.program_id(0).to(tl.int64)
    log_min_p, top_p = tl.load(log_min_ps_ptr + row), tl.load(top_ps_ptr + row)
    top_k = tl.load(top_ks_ptr + row)
    cut_k = (top_k > 0) & (top_k < vocab_size)
    if (log_min_p > -float("inf")) | cut_k | (top_p < 1):
        row_ptr = logits_ptr + row * vocab_size
        tops = tl.full((block,), -float("inf"), tl.float32)
        for begin in range(0, vocab_size, block):
            token = begin + tl.arange(0, block)
            tops = tl.maximum(tops, tl.load(row_ptr + token, token < vocab_size, -float("inf")))
        largest = tl.max(tops, axis=0)
        base = tl.where(largest > -float("inf"), largest, 0.0)
        floor = _key(tl.where(log_min_p > -float("inf"), largest + log_min_p, -float("inf")))
        if cut_k:
            wanted = top_k.to(tl.float32)
            kth, _ = _threshold(row_ptr, vocab_size, floor, base, wanted, False, block)
            floor = tl.maximum(floor, kth)
        border = floor * 0
        room = 0.0  # for the probability of tokens that tie with the border's
        if top_p < 1:
            border, wanted = _threshold(row_ptr, vocab_size, floor, base, top_p, True, block)
            above = tl.zeros((block,), tl.float32)
            for begin in range(0, vocab_size, block):
                token = begin + tl.arange(0, block)
                x = tl.load(row_ptr + token, token < vocab_size, -float("inf"))
                key = _key(x)
                above += tl.where(key > border, _weight(x, key, floor, base, True), 0.0)
            room = wanted - tl.sum(above, axis=0)
        num_ties = 0
        for begin in range(0, vocab_size, block):
            token = begin + tl.arange(0, block)
            is_token = token < vocab_size
            x = tl.load(row_ptr + token, is_token, -float("inf"))
            key = _key(x)
            is_tie = is_token & (key == border)
            before = num_ties + tl.cumsum(is_tie.to(tl.int32), axis=0) - is_tie.to(tl.int32)
            fits = before.to(tl.float32) * tl.exp(x - base) < room
            is_kept = (key >= floor) & ((key > border) | (is_tie & fits))
            num_ties += tl.sum(is_tie.to(tl.int32), axis=0)
            tl.store(row_ptr + token, -float("inf"), is_token & (is_kept == 0))


def adjust_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """Allowed and banned tokens, bias and penalties; the argument itself where nobody uses them."""
    parts = (batch.allowed, batch.banned, batch.bias, batch.penalties)
    if all(part is None for part in parts):
        return logits_BV
    logits = logits_BV.clone(memory_format=torch.contiguous_format)
    vocab_size = logits.shape[1]
    num_parts = triton.cdiv(vocab_size, BLOCK)
    if batch.allowed is not None and len(batch.allowed.rows_R):
        words = batch.allowed.words_RW.contiguous()
        mask_kernel[(len(words), num_parts)](
            logits, batch.allowed.rows_R, words, vocab_size, words.stride(0), vocab_size, BLOCK
        )
    if batch.banned is not None:
        logits[batch.banned.rows_N, batch.banned.tokens_N] = -torch.inf
    if batch.bias is not None:
        logits[batch.bias.rows_N, batch.bias.tokens_N] += batch.bias.values_N
    penalties = batch.penalties
    if penalties is not None and len(penalties.rows_R):
        penalise_kernel[(len(penalties.rows_R), num_parts)](
            logits,
            penalties.rows_R,
            penalties.repetition_R,
            penalties.frequency_R,
            penalties.presence_R,
            penalties.counts_RV.contiguous(),
            penalties.in_prompt_RV.contiguous().view(torch.uint8),
            vocab_size,
            vocab_size,
            BLOCK,
        )
    return logits


def cut_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """Temperature, then min-p, top-k and top-p cuts, in a new tensor; what is cut is at -inf."""
    num_rows, vocab_size = logits_BV.shape
    logits = logits_BV if logits_BV.stride(-1) == 1 else logits_BV.contiguous()
    y = torch.empty(num_rows, vocab_size, device=logits.device)
    if y.numel() == 0:
        return y
    grid = (num_rows, triton.cdiv(vocab_size, BLOCK))
    scale_kernel[grid](logits, batch.temperature_B, y, logits.stride(0), vocab_size, BLOCK)
    if not batch.no_cuts:
        cut_kernel[(num_rows,)](
            y,
            batch.min_p_B.log(),
            batch.top_k_B,
            batch.top_p_B,
            vocab_size,
            block=CUT_BLOCK,
            num_warps=CUT_WARPS,
        )
    return y


def process_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.ProcessLogits`."""
    logits = cut_logits(adjust_logits(logits_BV, batch), batch)
    if batch.forced_B is not None and logits.numel():
        num_rows, vocab_size = logits.shape
        grid = (num_rows, triton.cdiv(vocab_size, BLOCK))
        force_kernel[grid](logits, batch.forced_B, vocab_size, BLOCK)
    return logits
