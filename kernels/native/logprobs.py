"""Log-probabilities of tokens, and the most likely ones beside them."""

import torch
from torch import Tensor

from leadline.kernels.native.library import library
from leadline.kernels.native.sampling import check_logits


def token_logprobs(
    logits_BV: Tensor, ids_B: Tensor, num_top: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `sampling_api.TokenLogprobs`."""
    check_logits(logits_BV)
    num_rows, vocab_size = logits_BV.shape
    if ids_B.shape != (num_rows,) or ids_B.dtype != torch.int64:
        raise ValueError(f"ids are {tuple(ids_B.shape)} of {ids_B.dtype} for {num_rows} rows")
    ids_B = ids_B.contiguous()
    num_top = min(num_top, vocab_size)
    own_B, ranks_B = torch.empty(num_rows), torch.empty(num_rows, dtype=torch.int64)
    top_ids = torch.empty(num_rows, num_top, dtype=torch.int64)
    top = torch.empty(num_rows, num_top)
    failed = library().token_logprobs(
        logits_BV.data_ptr(),
        num_rows,
        logits_BV.stride(0),
        vocab_size,
        ids_B.data_ptr(),
        num_top,
        own_B.data_ptr(),
        ranks_B.data_ptr(),
        top_ids.data_ptr(),
        top.data_ptr(),
        torch.get_num_threads(),
    )
    if failed:
        raise ValueError(f"ids {ids_B.tolist()} are not all in [0, {vocab_size})")
    return own_B, ranks_B, top_ids, top
