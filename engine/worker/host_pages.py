"""The host tier's memory: pages evicted from the pool, each with a checksum."""

import torch
from torch import Tensor

from leadline.engine.step import MoveKind, PageMove
from leadline.engine.worker.page_checksums import PageChecksums, checksum_of
from leadline.kernels.latent_cache import LatentCache


class HostPages:
    """Copies pages of all layers, and the hidden state kept with them, to the host and back.

    Everything that a cached page stands for goes along, the MTP layer's entries and the hidden
    state that its next entry needs included, so that a page which comes back is the page that went.
    """

    def __init__(
        self,
        cache: LatentCache,
        num_places: int,
        page_hidden_PD: Tensor | None = None,
        checksums: PageChecksums | None = None,
    ) -> None:
        """Reserve the memory.

        Args:
            cache: whose pages are copied.
            num_places: pages that the tier holds.
            page_hidden_PD: hidden state of each page's last token, where a drafter keeps it.
            checksums: of the pool's pages, where they are kept; they go along.
        """
        self._layers = [layer.pages for layer in cache.layers]
        shape = (num_places, len(self._layers), *self._layers[0].shape[1:])
        pin = self._layers[0].is_cuda
        self._pages = torch.empty(shape, dtype=self._layers[0].dtype, pin_memory=pin)
        self._page_hidden = page_hidden_PD
        self._hidden: Tensor | None = None
        if page_hidden_PD is not None:
            self._hidden = torch.empty(
                num_places, page_hidden_PD.shape[1], dtype=page_hidden_PD.dtype, pin_memory=pin
            )
        self._checksums = [0] * num_places
        self._of_pool = checksums

    @property
    def num_bytes(self) -> int:
        """Bytes that the tier occupies."""
        hidden = 0 if self._hidden is None else self._hidden.nbytes
        return int(self._pages.nbytes + hidden)

    def apply(self, moves: list[PageMove]) -> list[int]:
        """Carry out copies in order; the places whose content did not match its checksum."""
        failed = []
        for move in moves:
            if move.kind is MoveKind.STORE:
                self._store(move.page_id, move.host_id)
            elif not self._load(move.page_id, move.host_id):
                failed.append(move.host_id)
        return failed

    def _store(self, page_id: int, host_id: int) -> None:
        for place, pages in zip(self._pages[host_id], self._layers, strict=True):
            place.copy_(pages[page_id])
        if self._hidden is not None and self._page_hidden is not None:
            self._hidden[host_id].copy_(self._page_hidden[page_id])
        checksum = None if self._of_pool is None else self._of_pool.get(page_id)
        self._checksums[host_id] = self._checksum(host_id) if checksum is None else checksum

    def _load(self, page_id: int, host_id: int) -> bool:
        if self._checksum(host_id) != self._checksums[host_id]:
            return False
        for place, pages in zip(self._pages[host_id], self._layers, strict=True):
            pages[page_id].copy_(place)
        if self._hidden is not None and self._page_hidden is not None:
            self._page_hidden[page_id].copy_(self._hidden[host_id])
        if self._of_pool is not None:
            self._of_pool.set(page_id, self._checksums[host_id])
        return True

    def _checksum(self, host_id: int) -> int:
        """Of a place's bytes; the number of the place does not enter it."""
        hidden = [] if self._hidden is None else [self._hidden[host_id]]
        return checksum_of([*self._pages[host_id], *hidden])
