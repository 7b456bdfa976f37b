"""Gumbel-max sampling in one pass over the logits: noise is made where it is added."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from leadline.kernels.sampling import NAN_LOGITS, NO_TOKEN, SamplingBatch
from leadline.kernels.triton.logits import adjust_logits, cut_logits

BLOCK = 4096  # tokens that a program looks at together
MAX_PARTS = 32  # programs of a row
# Coefficients of log(1 + f) in s = f / (2 + f), from fdlibm's e_logf.c; below one ulp.
_LG1, _LG2 = tl.constexpr(0.66666662693), tl.constexpr(0.40000972152)
_LG3, _LG4 = tl.constexpr(0.28498786688), tl.constexpr(0.24279078841)
_LN2_HIGH, _LN2_LOW = tl.constexpr(6.9313812256e-01), tl.constexpr(9.0580006145e-06)


@triton.jit
def _log_of_parts(f, exponent, correction):
    """log((1 + f) * 2^exponent) + correction, |f| < 0.42."""
    s = tl.div_rn(f, 2.0 + f)
    z = s * s
    w = z * z
    r = w * (_LG2 + w * _LG4) + z * (_LG1 + w * _LG3)
    half = 0.5 * f * f
    low = s * (half + r) + (exponent * _LN2_LOW + correction)
    return low - half + f + exponent * _LN2_HIGH


@triton.jit
def _split(x):
    """(mantissa in [0.707, 1.414], exponent) of normal float32 x > 0."""
    bits = x.to(tl.int32, bitcast=True) + (0x3F800000 - 0x3F3504F3)
    exponent = (bits >> 23) - 127
    mantissa = (bits & 0x7FFFFF) + 0x3F3504F3
    return mantissa.to(tl.float32, bitcast=True), exponent.to(tl.float32)


@triton.jit
def _log(x):
    mantissa, exponent = _split(x)
    return _log_of_parts(mantissa - 1.0, exponent, 0.0)


@triton.jit
def _log1p(x):
    """log(1 + x), -1 < x <= 0."""
    sum_ = 1.0 + x
    mantissa, exponent = _split(sum_)
    is_near_one = exponent == 0.0
    lost = tl.where(is_near_one, 0.0, tl.div_rn(x - (sum_ - 1.0), sum_))
    return _log_of_parts(tl.where(is_near_one, x, mantissa - 1.0), exponent, lost)


@triton.jit
def gumbel_noise(seed, position, group):
    """Noise of the tokens 4 g ... 4 g + 3 of each group g; see `sampling.gumbel_noise`."""
    zeros = tl.zeros_like(group)
    w0, w1, w2, w3 = tl.philox(seed, group, zeros + position, zeros, zeros)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    k = tl.reshape(words, (group.shape[0] * 4,)).to(tl.uint32, bitcast=True)
    u = (k.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    return -_log(-_log1p(-tl.minimum(u, 1.0 - 5.960464477539063e-08)))


@triton.jit
def noise_kernel(seeds_ptr, positions_ptr, noise_ptr, vocab_size, block: tl.constexpr):
    """The noise alone, for tests: program (b, p) writes part p of row b."""
    row = tl.program_id(0).to(tl.int64)
    seed, position = tl.load(seeds_ptr + row), tl.load(positions_ptr + row).to(tl.int32)
    group = tl.program_id(1) * (block // 4) + tl.arange(0, block // 4)
    token = tl.program_id(1) * block + tl.arange(0, block)
    noise = gumbel_noise(seed, position, group)
    tl.store(noise_ptr + row * vocab_size + token, noise, token < vocab_size)


@triton.jit
def sample_kernel(
    logits_ptr,
    temperatures_ptr,
    seeds_ptr,
    positions_ptr,
    values_ptr,
    ids_ptr,
    logits_stride,
    vocab_size,
    part_size,
    first_id,
    divide: tl.constexpr,
    block: tl.constexpr,
):
    """Program (b, p): the best token of part p of row b and its value, NaN if there is one.

    Token t of the logits has the id `first_id` + t.
    """
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperatures_ptr + row)
    seed, position = tl.load(seeds_ptr + row), tl.load(positions_ptr + row).to(tl.int32)
    first = tl.program_id(1) * part_size
    best = tl.full((block,), -float("inf"), tl.float32)
    best_ids = first + tl.arange(0, block)
    has_nan = tl.zeros((block,), tl.int32)
    for begin in range(first, tl.minimum(first + part_size, vocab_size), block):
        token = begin + tl.arange(0, block)
        mask = token < vocab_size
        logits = tl.load(logits_ptr + row * logits_stride + token, mask, -float("inf"))
        has_nan |= (logits != logits).to(tl.int32)
        if temperature > 0:
            if divide:
                logits = tl.div_rn(logits, tl.zeros_like(logits) + temperature)
            group = (first_id + begin) // 4 + tl.arange(0, block // 4)
            logits += gumbel_noise(seed, position, group)
        is_better = logits > best
        best_ids = tl.where(is_better, token, best_ids)
        best = tl.where(is_better, logits, best)
    largest = tl.max(best, axis=0)
    token = tl.min(tl.where(best == largest, best_ids, vocab_size), axis=0)
    place = row * tl.num_programs(1) + tl.program_id(1)
    tl.store(values_ptr + place, tl.where(tl.max(has_nan, axis=0) > 0, float("nan"), largest))
    tl.store(ids_ptr + place, first_id + token)


@triton.jit
def choose_kernel(
    values_ptr,
    part_ids_ptr,
    best_ptr,
    ids_ptr,
    num_parts,
    nan_id,
    empty_id,
    parts: tl.constexpr,
):
    """The best of the parts of a row; `empty_id` if it allows no token."""
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, parts)
    mask = part < num_parts
    values = tl.load(values_ptr + row * num_parts + part, mask, -float("inf"))
    part_ids = tl.load(part_ids_ptr + row * num_parts + part, mask, 0)
    is_nan = tl.max((values != values).to(tl.int32), axis=0) > 0
    largest = tl.max(values, axis=0)
    first = tl.min(tl.where((values == largest) & mask, part, parts), axis=0)
    best = tl.sum(tl.where(part == first, part_ids, 0), axis=0).to(tl.int64)
    best = tl.where((largest == -float("inf")) & (empty_id < 0), empty_id.to(tl.int64), best)
    tl.store(ids_ptr + row, tl.where(is_nan, nan_id.to(tl.int64), best))
    tl.store(best_ptr + row, tl.where(is_nan, float("nan"), largest))


def _best(
    logits_BV: Tensor, batch: SamplingBatch, *, divide: bool, empty_id: int, first_id: int = 0
) -> tuple[Tensor, Tensor]:
    """(value, id) of the best token of each row; `divide` by the temperature."""
    logits = logits_BV if logits_BV.stride(-1) == 1 else logits_BV.contiguous()
    num_rows, vocab_size = logits.shape
    best = torch.empty(num_rows, device=logits.device)
    ids = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    if num_rows == 0:
        return best, ids
    blocks = triton.cdiv(vocab_size, BLOCK)
    part_size = triton.cdiv(blocks, MAX_PARTS) * BLOCK
    num_parts = triton.cdiv(vocab_size, part_size)
    values = torch.empty(num_rows, num_parts, device=logits.device)
    part_ids = torch.empty(num_rows, num_parts, dtype=torch.int32, device=logits.device)
    sample_kernel[(num_rows, num_parts)](
        logits,
        batch.temperature_B,
        batch.seeds_B,
        batch.positions_B,
        values,
        part_ids,
        logits.stride(0),
        vocab_size,
        part_size,
        first_id,
        divide=divide,
        block=BLOCK,
        num_warps=8,
    )
    parts = triton.next_power_of_2(num_parts)
    choose_kernel[(num_rows,)](
        values, part_ids, best, ids, num_parts, NAN_LOGITS, empty_id, parts=parts, num_warps=1
    )
    return best, ids


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.Sample`."""
    adjusted = adjust_logits(logits_BV, batch)
    is_cut = not batch.all_greedy and not batch.no_cuts
    # No cut drops the token that a greedy row takes.
    seen = cut_logits(adjusted, batch) if is_cut else adjusted
    empty_id = 0 if adjusted is logits_BV else NO_TOKEN
    _, ids = _best(seen, batch, divide=not is_cut, empty_id=empty_id)
    if batch.forced_B is not None:
        ids = torch.where(batch.forced_B >= 0, batch.forced_B, ids)
    if seen is not logits_BV or batch.forced_B is not None:
        ids = ids.masked_fill(logits_BV.isnan().any(-1), NAN_LOGITS)
    return ids


def sample_shard(logits_BV: Tensor, batch: SamplingBatch, first_id: int) -> tuple[Tensor, Tensor]:
    """See `sampling_api.SampleShard`."""
    assert first_id % 4 == 0, "a shard of the vocabulary starts on a multiple of 4"
    return _best(logits_BV, batch, divide=True, empty_id=0, first_id=first_id)
