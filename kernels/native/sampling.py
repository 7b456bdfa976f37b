"""Logits as tokens are sampled from them, and sampling by the Gumbel-max trick."""

import struct

import torch
from torch import Tensor

from leadline.kernels.native.library import check_columns, library
from leadline.kernels.reference.logits import adjust_logits
from leadline.kernels.sampling import SamplingBatch

_pack = struct.Struct("=QQQQQQ").pack


def check_logits(logits_BV: Tensor) -> None:
    """Raises ValueError unless they are rows of float32 on the CPU."""
    if logits_BV.dtype != torch.float32 or logits_BV.device.type != "cpu":
        raise ValueError(f"logits are {logits_BV.dtype} on {logits_BV.device}, not float32 on cpu")
    check_columns(logits_BV, "logits")


def process_logits(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.ProcessLogits`; rules about tokens are applied by the reference."""
    check_logits(logits_BV)
    num_rows, vocab_size = logits_BV.shape
    adjusted_BV = adjust_logits(logits_BV, batch)
    tensors = _parameters(batch, num_rows)
    forced_B = None if batch.forced_B is None else batch.forced_B.contiguous()
    processed_BV = torch.empty(num_rows, vocab_size)
    library().process_logits(
        adjusted_BV.data_ptr(),
        num_rows,
        adjusted_BV.stride(0),
        vocab_size,
        _pack(*(p.data_ptr() for p in tensors)),
        not batch.no_cuts,
        0 if forced_B is None else forced_B.data_ptr(),
        processed_BV.data_ptr(),
        torch.get_num_threads(),
    )
    return processed_BV


def sample(logits_BV: Tensor, batch: SamplingBatch) -> Tensor:
    """See `sampling_api.Sample`; rules about tokens are applied by the reference."""
    check_logits(logits_BV)
    num_rows, vocab_size = logits_BV.shape
    adjusted_BV = adjust_logits(logits_BV, batch)
    if adjusted_BV.stride() != logits_BV.stride():
        logits_BV, adjusted_BV = logits_BV.contiguous(), adjusted_BV.contiguous()
    tensors = _parameters(batch, num_rows)
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


def _parameters(batch: SamplingBatch, num_rows: int) -> list[Tensor]:
    """One value for each row, in the order of the C struct."""
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
    return [p.contiguous() for p, _ in parameters]
