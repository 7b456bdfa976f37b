"""The product of the vocabulary head by cuBLAS, through torch."""

import torch
from torch import Tensor


def vocab_logits(hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
    """See `api.VocabLogits`; cuBLAS adds up in float32 and leaves it at that."""
    if hidden_TD.dtype == torch.float32:
        return hidden_TD @ head_VD.T
    return torch.mm(hidden_TD, head_VD.T, out_dtype=torch.float32)
