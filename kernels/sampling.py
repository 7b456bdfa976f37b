"""What a batch of samples needs, and the noise that makes a sample a function of its position.

The noise of (choice seed, position, token id) is Gumbel noise from one Philox4x32-10 lane (Salmon
et al., 2011): key = seed, counter = (token id // 4, position, 0, 0), lane = token id % 4. So it is
the same alone or in a batch, drafted or not, and on any shard of the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = 0xFFFFFFFF
_ROUNDS = 10


@dataclass(slots=True)
class SamplingBatch:
    """Sampling parameters of B rows.

    Attributes:
        temperature_B: float32; 0 is greedy.
        top_k_B: int64; 0 keeps all.
        top_p_B: float32 in (0, 1].
        min_p_B: float32 in [0, 1].
        seeds_B: int64 holding the 64 bits of the choice seed.
        positions_B: int64, index in the request of the token to be sampled.
        all_greedy: every temperature is 0.
        no_cuts: no row uses top-k, top-p or min-p.
    """

    temperature_B: Tensor
    top_k_B: Tensor
    top_p_B: Tensor
    min_p_B: Tensor
    seeds_B: Tensor
    positions_B: Tensor
    all_greedy: bool
    no_cuts: bool


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


def gumbel_noise(seeds_B: Tensor, positions_B: Tensor, vocab_size: int) -> Tensor:
    """Gumbel noise float32 [B, vocab_size], accurate in the tail (u is never 0 or 1)."""
    groups = torch.arange(-(-vocab_size // 4), device=seeds_B.device)
    seeds = seeds_B.unsqueeze(1)
    key = (seeds & _MASK, (seeds >> 32) & _MASK)
    words = philox_4x32((groups.unsqueeze(0), positions_B.unsqueeze(1)), key)
    k = torch.stack(words, dim=-1).flatten(1)[:, :vocab_size]
    u = (k.to(torch.float32) + 0.5) * 2.0**-32
    # k + 0.5 rounds to 2^32 for the largest k: keep u below 1, where log1p(-u) is finite.
    u = u.clamp_(max=1.0 - 2.0**-24)
    return -torch.log(-torch.log1p(-u))
