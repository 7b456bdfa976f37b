"""What the wrappers of all kernels need to launch them."""

from functools import cache

import torch
from torch import Tensor

_INTERPRETED_PROGRAMS = 4
_HOPPER_MULTIPROCESSORS = 132


def rows_of(x: Tensor) -> Tensor:
    """[..., K] as rows [T, K] whose values are adjacent; a view where it can be."""
    rows = x.reshape(-1, x.shape[-1]) if x.ndim != 2 else x
    return rows if rows.stride(-1) == 1 or rows.shape[-1] == 1 else rows.contiguous()


def check_scale_format(scale_format: str) -> None:
    """Raises ValueError for a scale format that there is not."""
    if scale_format not in ("fp32", "ue8m0"):
        raise ValueError(f"scale_format must be fp32 or ue8m0, not {scale_format!r}")


@cache
def num_multiprocessors(device: torch.device) -> int:
    """Programs that a persistent kernel starts.

    Those of a full Hopper where a launch is only compiled, a few where the interpreter runs them.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return _HOPPER_MULTIPROCESSORS if device.type == "meta" else _INTERPRETED_PROGRAMS
