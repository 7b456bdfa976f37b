"""What a batch of samples needs, and the noise that makes a sample a function of its position.

The noise of (choice seed, position, token id) is Gumbel noise from one Philox4x32-10 lane (Salmon
et al., 2011): key = seed, counter = (token id // 4, position, 0, 0), lane = token id % 4. So it is
the same alone or in a batch, drafted or not, and on any shard of the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NAN_LOGITS = -1  # sampled from a row whose logits hold a NaN
NO_TOKEN = -2  # sampled from a row that allows no token

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_ROUNDS = 10


@dataclass(slots=True)
class Penalties:
    """Penalties of R of the B rows.

    Attributes:
        rows_R: int64, which rows.
        repetition_R: float32, above 0; logits of tokens seen in prompt or output are divided by it
            if positive, else multiplied.
        frequency_R: float32, subtracted for each time that a token is in the output.
        presence_R: float32, subtracted once if it is.
        counts_RV: int32, how often each token is in the output before the position.
        in_prompt_RV: bool, whether it is in the prompt.
    """

    rows_R: Tensor
    repetition_R: Tensor
    frequency_R: Tensor
    presence_R: Tensor
    counts_RV: Tensor
    in_prompt_RV: Tensor


@dataclass(slots=True)
class LogitBias:
    """N values to be added to logits; no (row, token) pair is there twice.

    Attributes:
        rows_N, tokens_N: int64.
        values_N: float32.
    """

    rows_N: Tensor
    tokens_N: Tensor
    values_N: Tensor


@dataclass(slots=True)
class BannedTokens:
    """N (row, token) pairs that cannot be sampled; `rows_N`, `tokens_N`: int64."""

    rows_N: Tensor
    tokens_N: Tensor


@dataclass(slots=True)
class AllowedTokens:
    """The only tokens that R of the B rows can sample.

    Attributes:
        rows_R: int64, which rows.
        words_RW: int32, W = ceil(V / 32); bit i % 32 of word i // 32 is set if token i is allowed.
    """

    rows_R: Tensor
    words_RW: Tensor


@dataclass(slots=True)
class SamplingBatch:
    """Sampling parameters of B rows. What no row uses is None, and costs nothing.

    Attributes:
        temperature_B: float32; 0 is greedy.
        top_k_B: int64; 0 keeps all.
        top_p_B: float32 in (0, 1].
        min_p_B: float32 in [0, 1].
        seeds_B: int64 holding the 64 bits of the choice seed.
        positions_B: int64, index in the request of the token to be sampled.
        all_greedy: every temperature is 0.
        no_cuts: no row uses top-k, top-p or min-p.
        forced_B: int64, the token that is sampled whatever the logits are; -1 for none.
    """

    temperature_B: Tensor
    top_k_B: Tensor
    top_p_B: Tensor
    min_p_B: Tensor
    seeds_B: Tensor
    positions_B: Tensor
    all_greedy: bool
    no_cuts: bool
    allowed: AllowedTokens | None = None
    banned: BannedTokens | None = None
    bias: LogitBias | None = None
    penalties: Penalties | None = None
    forced_B: Tensor | None = None


def _mul_hi_lo(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a 32 x 32 bit product; int64 wraps, its bits are right."""
    product = b * a
    return (product >> 32) & _MASK, product & _MASK


def philox_4x32(counter: tuple[Tensor, Tensor], key: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Four 32-bit words (int64 in [0, 2^32)) of Philox4x32-10 at counter (c0, c1, 0, 0).

    Args:
        counter: two int64 tensors in [0, 2^32), broadcastable with the key.
        key: low and high word of the seed, int64 in [0, 2^32).
    """
    x0, x1 = torch.broadcast_tensors(*counter)
    x2 = x3 = torch.zeros_like(x0)
    k0, k1 = key
    for _ in range(_ROUNDS):
        hi0, lo0 = _mul_hi_lo(_M0, x0)
        hi1, lo1 = _mul_hi_lo(_M1, x2)
        x0, x1, x2, x3 = hi1 ^ x1 ^ k0, lo1, hi0 ^ x3 ^ k1, lo0
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return [x0, x1, x2, x3]


def gumbel_noise(
    seeds_B: Tensor, positions_B: Tensor, vocab_size: int, first_id: int = 0
) -> Tensor:
    """Gumbel noise float32 [B, vocab_size], accurate in the tail (u is never 0 or 1).

    Of the tokens from `first_id`, a multiple of 4.
    """
    assert first_id % 4 == 0, "a shard of the vocabulary starts on a multiple of 4"
    first = first_id // 4
    groups = torch.arange(first, first - (-vocab_size // 4), device=seeds_B.device)
    seeds = seeds_B.unsqueeze(1)
    key = (seeds & _MASK, (seeds >> 32) & _MASK)
    words = philox_4x32((groups.unsqueeze(0), positions_B.unsqueeze(1)), key)
    k = torch.stack(words, dim=-1).flatten(1)[:, :vocab_size]
    u = (k.to(torch.float32) + 0.5) * 2.0**-32
    # k + 0.5 rounds to 2^32 for the largest k: keep u below 1, where log1p(-u) is finite.
    u = u.clamp_(max=1.0 - 2.0**-24)
    return -torch.log(-torch.log1p(-u))
