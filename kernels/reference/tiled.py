"""Batch-invariant products: every row is computed in a tile of one fixed shape.

A matrix library chooses its blocking, and so the order of its sums, by the shape of the product.
Here each product has the shape [ROWS, K] x [K, N] whatever the number of rows, and the rows of a
tile do not meet, so that a row's bits depend on that row alone.
"""

import torch
from torch import Tensor

from leadline.kernels.reference.moe import GroupedMLP, swiglu
from leadline.kernels.types import QuantTensor

ROWS = 8
_MIN_SHARE = 4  # one in so many experts has to have rows, for all of them to be computed


def linear_tiled(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """See `api.Linear`; batch-invariant."""
    num_rows, num_tiles = x_TK.shape[0], -(-x_TK.shape[0] // ROWS)
    if num_rows == 0:
        return x_TK.new_empty(0, weight_NK.shape[0])
    padded = torch.nn.functional.pad(x_TK, (0, 0, 0, num_tiles * ROWS - num_rows))
    tiles = padded.view(num_tiles, ROWS, -1)
    weight = weight_NK.T.unsqueeze(0).expand(num_tiles, -1, -1)
    return torch.bmm(tiles, weight).flatten(0, 1)[:num_rows]


def vocab_logits_tiled(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """See `api.VocabLogits`; batch-invariant."""
    return linear_tiled(hidden_TD.float(), head_VD.float())


def router_logits_tiled(x_TD: Tensor, gate_ED: Tensor) -> Tensor:
    """See `api.RouterLogits`; batch-invariant."""
    return linear_tiled(x_TD.float(), gate_ED)


def linear_fp8_tiled(x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
    """See `api.LinearFP8`; `activation_format` none, batch-invariant."""
    return linear_tiled(x_TK.float(), weight_NK.dequantize(torch.float32)).to(x_TK.dtype)


class TiledGroupedMLP:
    """See `api.GroupedMLP`; batch-invariant.

    While a good part of all experts have rows left, as with a small model, one product takes the
    next tile of every expert, empty ones included; where few have, one expert comes after the
    other. A row's bits are the same either way.
    """

    def __init__(self) -> None:
        self._one_by_one = GroupedMLP(linear_tiled, linear_fp8_tiled)

    def __call__(
        self,
        x_RD: Tensor,
        counts: Tensor,
        gate_up_E2FD: Tensor | QuantTensor,
        down_EDF: Tensor | QuantTensor,
    ) -> Tensor:
        """See `api.GroupedMLP`."""
        if isinstance(gate_up_E2FD, QuantTensor) or isinstance(down_EDF, QuantTensor):
            return self._one_by_one(x_RD, counts, gate_up_E2FD, down_EDF)
        num_experts = len(counts)
        experts_R = torch.repeat_interleave(counts)
        ranks_R = torch.arange(len(experts_R)) - (counts.cumsum(0) - counts)[experts_R]
        y_RD = x_RD.new_empty(x_RD.shape[0], down_EDF.shape[1])
        begin = 0
        while int((counts > begin).sum()) * _MIN_SHARE >= num_experts:
            chosen = (ranks_R >= begin) & (ranks_R < begin + ROWS)
            places = (experts_R * ROWS + ranks_R - begin)[chosen].to(x_RD.device)
            chosen = chosen.to(x_RD.device)
            tiles = x_RD.new_zeros(num_experts * ROWS, x_RD.shape[1])
            tiles[places] = x_RD[chosen]
            hidden = torch.bmm(tiles.view(num_experts, ROWS, -1), gate_up_E2FD.mT)
            hidden = swiglu(hidden.flatten(0, 1)).view(num_experts, ROWS, -1)
            y_RD[chosen] = torch.bmm(hidden, down_EDF.mT).flatten(0, 1)[places]
            begin += ROWS
        left = (ranks_R >= begin).to(x_RD.device)
        counts_left = (counts - begin).clamp(min=0)
        if counts_left.any():
            y_RD[left] = self._one_by_one(x_RD[left], counts_left, gate_up_E2FD, down_EDF)
        return y_RD
