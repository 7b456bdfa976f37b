"""A checksum of a tensor's bytes, computed on the device where they are."""

from functools import lru_cache

import torch
from torch import Tensor

_PRIME = 2**31 - 1
_BASES = (257, 65_537)
_WIDTH = 4096


def checksum(x: Tensor) -> int:
    """Two polynomials of the bytes modulo a prime, below 2**62; uint8 [n].

    It notices any single byte that has changed, and others with a probability of 1 - n / 2**60.
    """
    return _polynomial(x, _BASES[0]) << 31 | _polynomial(x, _BASES[1])


def _polynomial(x: Tensor, base: int) -> int:
    """Sum of (x[i] + 1) * base ** i, row by row, then over the rows' sums in the same way."""
    values = x
    while True:
        rows = torch.nn.functional.pad(values, (0, -len(values) % _WIDTH)).view(-1, _WIDTH)
        powers_W = _powers(base, x.device)
        values = ((rows.to(torch.int64) + 1) * powers_W % _PRIME).sum(1) % _PRIME
        if len(values) <= 1:
            return int(values.sum())
        base = pow(base, _WIDTH, _PRIME)


@lru_cache(maxsize=16)
def _powers(base: int, device: torch.device) -> Tensor:
    powers = [1]
    while len(powers) < _WIDTH:
        powers.append(powers[-1] * base % _PRIME)
    return torch.tensor(powers, dtype=torch.int64, device=device)
