"""The embedding table, which tensor parallel ranks share by rows."""

from collections.abc import Callable

import torch
from torch import Tensor

from leadline.engine.parallel.collectives import Collectives

Embed = Callable[[Tensor], Tensor]
"""Token ids int64 [T] -> their rows [T, D]."""


def make_embed(table_VD: Tensor, tp: Collectives) -> Embed:
    """A look-up in the table whose rows [rank * V, (rank + 1) * V) are here."""
    if tp.size == 1:
        return lambda ids_T: torch.nn.functional.embedding(ids_T, table_VD)
    num_rows = table_VD.shape[0]
    first = tp.rank * num_rows

    def embed(ids_T: Tensor) -> Tensor:
        local_T = ids_T - first
        is_here_T = (local_T >= 0) & (local_T < num_rows)
        rows_TD = torch.nn.functional.embedding(local_T.where(is_here_T, 0), table_VD)
        return tp.all_reduce(rows_TD * is_here_T.unsqueeze(1))  # one rank's row, and zeros

    return embed
