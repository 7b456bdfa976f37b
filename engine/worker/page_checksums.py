"""Checksums of full pages: one that has changed since is noticed (`--verify-pages`)."""

import zlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from leadline.kernels.latent_cache import LatentCache


class PageChecksums:
    """CRC-32 of all that a page of the pool stands for: every layer's latents, the hidden state.

    A page is sealed once it is full: what its slots hold depends on tokens up to their own only,
    so nothing writes to it again before it is given to another request.
    """

    def __init__(self, cache: LatentCache, page_hidden_PD: Tensor | None = None) -> None:
        """No page is sealed.

        Args:
            cache: whose pages are summed.
            page_hidden_PD: hidden state of each page's last token, where a drafter keeps it.
        """
        self._layers = [layer.pages for layer in cache.layers]
        self._page_hidden = page_hidden_PD
        self._checksums: list[int | None] = [None] * cache.num_pages

    def get(self, page_id: int) -> int | None:
        """The checksum of a page since it was sealed; None if it never was."""
        return self._checksums[page_id]

    def set(self, page_id: int, checksum: int) -> None:
        """Seal a page whose checksum is known."""
        self._checksums[page_id] = checksum

    def seal(self, page_ids: Iterable[int]) -> None:
        """Sum pages that have become full."""
        for page_id in page_ids:
            self._checksums[page_id] = self._sum(page_id)

    def find_damaged(self, page_ids: Sequence[int]) -> list[int]:
        """Those pages that are not what they were when they were sealed."""
        return [page_id for page_id in page_ids if self._sum(page_id) != self._checksums[page_id]]

    def _sum(self, page_id: int) -> int:
        hidden = [] if self._page_hidden is None else [self._page_hidden[page_id]]
        return checksum_of([*(pages[page_id] for pages in self._layers), *hidden])


def checksum_of(parts: Iterable[Tensor]) -> int:
    """CRC-32 of the bytes of contiguous tensors, one after the other."""
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part.cpu().view(torch.uint8).numpy().data, checksum)
    return checksum
