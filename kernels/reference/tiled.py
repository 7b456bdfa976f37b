"""Batch-invariant products: every row is computed in a tile of one fixed shape.

A matrix library chooses its blocking, and so the order of its sums, by the shape of the product.
Here each product has the shape [ROWS, K] x [K, N] whatever the number of rows, and the rows of a
tile do not meet, so that a row's bits depend on that row alone.
"""

import torch
from torch import Tensor

from leadline.kernels.types import QuantTensor

ROWS = 8


def linear_tiled(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """See `api.Linear`; batch-invariant."""
    num_rows, num_tiles = x_TK.shape[0], -(-x_TK.shape[0] // ROWS)
    if num_rows == 0:
        return x_TK.new_empty(0, weight_NK.shape[0])
    padded = torch.nn.functional.pad(x_TK, (0, 0, 0, num_tiles * ROWS - num_rows))
    tiles = padded.view(num_tiles, ROWS, -1)
    weight = weight_NK.T.unsqueeze(0).expand(num_tiles, -1, -1)
    return torch.bmm(tiles, weight).flatten(0, 1)[:num_rows]


def router_logits_tiled(x_TD: Tensor, gate_ED: Tensor) -> Tensor:
    """See `api.RouterLogits`; batch-invariant."""
    return linear_tiled(x_TD.float(), gate_ED)


def linear_fp8_tiled(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` none, batch-invariant."""
    return linear_tiled(x_TK.float(), weight_NK.dequantize(torch.float32)).to(x_TK.dtype)
