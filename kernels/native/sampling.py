"""Sampling by the Gumbel-max trick over processed logits."""

import struct

import torch
from torch import Tensor

from leadline.kernels.native.library import check_columns, library
from leadline.kernels.reference.logits import adjust_logits
from leadline.kernels.sampling import SamplingBatch

_pack = struct.Struct("=QQQQQQ").pack


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.Sample`; rules about tokens are applied by the reference."""
    num_rows, vocab_size = logits_BV.shape
    if logits_BV.dtype != torch.float32 or logits_BV.device.type != "cpu":
        raise ValueError(f"logits are {logits_BV.dtype} on {logits_BV.device}, not float32 on cpu")
    check_columns(logits_BV, "logits")
    adjusted_BV = adjust_logits(logits_BV, batch)
    if adjusted_BV.stride() != logits_BV.stride():
        logits_BV, adjusted_BV = logits_BV.contiguous(), adjusted_BV.contiguous()
    parameters = (
        (batch.temperature_B, torch.float32),
        (batch.top_k_B, torch.int64),
        (batch.top_p_B, torch.float32),
        (batch.min_p_B, torch.float32),
        (batch.seeds_B, torch.int64),
        (batch.positions_B, torch.int64),
    )
    if any(p.dtype != dtype or p.shape != (num_rows,) for p, dtype in parameters):
        raise ValueError(f"parameters do not go with {num_rows} rows: {batch}")
    tensors = [p.contiguous() for p, _ in parameters]
    ids_B = torch.empty(num_rows, dtype=torch.int64)
    library().sample(
        logits_BV.data_ptr(),
        adjusted_BV.data_ptr(),
        num_rows,
        logits_BV.stride(0),
        vocab_size,
        _pack(*(p.data_ptr() for p in tensors)),
        not batch.no_cuts,
        ids_B.data_ptr(),
        torch.get_num_threads(),
    )
    if batch.forced_B is None:
        return ids_B
    # A row of NaN is one whatever is forced.
    return torch.where((batch.forced_B >= 0) & (ids_B != -1), batch.forced_B, ids_B)
