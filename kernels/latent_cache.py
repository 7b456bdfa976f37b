"""The paged cache of compressed latents (V2 paper, section 2.1; FP8 layout as in V3.2)."""

import math
import mmap
from dataclasses import dataclass

import torch
from torch import Tensor

FP8_GROUP = 128
_FP8_SCALE_BYTES = 4
_BF16_BYTES = 2
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.uint8}


@dataclass(frozen=True, slots=True)
class LatentLayout:
    """How one token's latent (C values) and rotated key (R values) lie in a slot.

    `float32` and `bfloat16` hold C + R values. `fp8` holds bytes: C e4m3 values, one float32 scale
    per 128 of them, R bfloat16 values: 656 bytes for C = 512, R = 64.
    """

    kv_lora_rank: int
    qk_rope_head_dim: int
    dtype: str

    @property
    def width(self) -> int:
        """Elements of `torch_dtype` a slot."""
        if self.dtype != "fp8":
            return self.kv_lora_rank + self.qk_rope_head_dim
        scales = -(-self.kv_lora_rank // FP8_GROUP) * _FP8_SCALE_BYTES
        return self.kv_lora_rank + scales + self.qk_rope_head_dim * _BF16_BYTES

    @property
    def torch_dtype(self) -> torch.dtype:
        """Element type of the storage."""
        return _DTYPES[self.dtype]

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token in one layer."""
        return self.width * self.torch_dtype.itemsize


@dataclass(slots=True)
class LatentCacheLayer:
    """One layer's pages: [num_pages, page_size, layout.width]."""

    pages: Tensor
    layout: LatentLayout

    @property
    def page_size(self) -> int:
        """Tokens a page."""
        return self.pages.shape[1]


class LatentCache:
    """Pages of all layers (the MTP layer is the last); page p of every layer is one page.

    Attributes:
        layers: one `LatentCacheLayer` a layer, views of one allocation.
    """

    def __init__(
        self,
        num_layers: int,
        num_pages: int,
        page_size: int,
        layout: LatentLayout,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (num_layers, num_pages, page_size, layout.width)
        storage = _zeros(shape, layout.torch_dtype, torch.device(device))
        self.layers = [LatentCacheLayer(storage[i], layout) for i in range(num_layers)]
        self.num_pages = num_pages
        self.page_size = page_size
        self.num_bytes = storage.numel() * storage.element_size()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that, on a CPU, take memory only where they have been written or read."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or not num_bytes:
        return torch.zeros(shape, dtype=dtype, device=device)
    mapped = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(mapped, dtype=torch.uint8).view(dtype).view(shape)
