"""The multi-token prediction layer, and its chains of drafts, in one call."""

import ctypes
import itertools
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from leadline.kernels.decoder import ChainStart, DecoderStack, PagedStep, PairingWeights
from leadline.kernels.latent_cache import LatentCache
from leadline.kernels.native.decoder import PARTS as LAYER_PARTS
from leadline.kernels.native.decoder import (
    NativeLayers,
    gain,
    pack_gain,
    pack_pool,
    pack_projection,
    pack_step,
    raise_if,
)
from leadline.kernels.native.library import check_rows, library

_pack_embedding = struct.Struct("=Qq").pack
_pack_chain = struct.Struct("=q QQQ Q QQ QQQQQ q d qq QQQ").pack

PARTS = (*LAYER_PARTS, "vocab_logits", "sample")
"""The operations that a chain of drafts is made of."""


class NativeMTP:
    """`decoder.FusedMTP`; keeps the weights that it has packed the places of."""

    def __init__(self, stack: DecoderStack, pairing: PairingWeights) -> None:
        self._layers = NativeLayers(stack)
        self._pairing = pairing
        embedding = pairing.embed_tokens
        if not embedding.is_contiguous():
            raise ValueError(f"the embedding has strides {embedding.stride()}: rows have gaps")
        self._packed = (
            _pack_embedding(embedding.data_ptr(), len(embedding))
            + pack_gain(*gain(pairing.enorm))
            + pack_gain(*gain(pairing.hnorm))
            + pack_projection(pairing.eh_proj)
            + pack_projection(pairing.head)
        )

    def run(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """See `FusedMTP.run`."""
        hidden_TD, ids_T = self._check(hidden_TD, ids_T, step)
        packed_step, _kept = pack_step(step)
        normed_TD, raw_TD = torch.empty((2, *hidden_TD.shape), dtype=hidden_TD.dtype)
        failed = library().run_mtp(
            self._layers.pack(hidden_TD.dtype),
            self._packed,
            packed_step,
            ids_T.data_ptr(),
            hidden_TD.data_ptr(),
            normed_TD.data_ptr(),
            raw_TD.data_ptr(),
            torch.get_num_threads(),
        )
        raise_if(failed, step)
        return normed_TD, raw_TD

    def write(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> None:
        """See `FusedMTP.write`."""
        hidden_TD, ids_T = self._check(hidden_TD, ids_T, step)
        packed_step, _kept = pack_step(step)
        failed = library().write_mtp(
            self._layers.pack(hidden_TD.dtype),
            self._packed,
            packed_step,
            ids_T.data_ptr(),
            hidden_TD.data_ptr(),
            torch.get_num_threads(),
        )
        raise_if(failed, step)

    def draft(self, start: ChainStart, cache: LatentCache) -> tuple[list[list[int]], int]:
        """See `FusedMTP.draft`."""
        hidden_BD = start.hidden_BD.contiguous()
        self._check_format(hidden_BD)
        num_rows, most = len(hidden_BD), max(start.nums_drafts, default=0)
        page_table = start.page_table.contiguous()
        end_ids = list(itertools.chain.from_iterable(start.end_ids))
        numbers = _whole_numbers(
            start.token_ids,
            start.positions,
            start.nums_drafts,
            [len(ids) for ids in start.end_ids],
            end_ids,
        )
        results = (ctypes.c_int64 * (num_rows * (most + 1) + 1))()
        sampling = start.sampling
        columns = (
            *(sampling.temperature_B, sampling.top_k_B, sampling.top_p_B, sampling.min_p_B),
            sampling.seeds_B,
        )
        places = [ctypes.addressof(array) for array in numbers]
        counts_at = ctypes.addressof(results) + 8 * num_rows * most
        chain = _pack_chain(
            num_rows,
            *places[:3],
            hidden_BD.data_ptr(),
            places[4],
            places[3],
            *(column.data_ptr() for column in columns),
            not sampling.no_cuts,
            start.least_probability,
            start.after_norm,
            most,
            ctypes.addressof(results),
            counts_at,
            counts_at + 8 * num_rows,
        )
        failed = library().draft(
            self._layers.pack(hidden_BD.dtype),
            self._packed,
            pack_pool(cache, page_table),
            chain,
            torch.get_num_threads(),
        )
        if failed:
            raise ValueError(f"drafts after {list(start.token_ids)}: no tokens, or no pages")
        counts = results[num_rows * most : -1]
        drafts = [results[row * most : row * most + count] for row, count in enumerate(counts)]
        return drafts, results[-1]

    def _check(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        hidden_TD = hidden_TD.contiguous()
        self._layers.check(hidden_TD, step)
        self._check_format(hidden_TD)
        if ids_T.dtype != torch.int64 or len(ids_T) != len(hidden_TD):
            raise ValueError(f"ids are {tuple(ids_T.shape)} of {ids_T.dtype}")
        return hidden_TD, ids_T.contiguous()

    def _check_format(self, hidden_TD: Tensor) -> None:
        check_rows(hidden_TD, "hidden")
        embedding = self._pairing.embed_tokens
        if hidden_TD.dtype != embedding.dtype or hidden_TD.shape[1] != embedding.shape[1]:
            raise ValueError(
                f"hidden is {tuple(hidden_TD.shape)} of {hidden_TD.dtype} beside an embedding "
                f"{tuple(embedding.shape)} of {embedding.dtype}"
            )


def _whole_numbers(*columns: Sequence[int]) -> list[ctypes.Array[ctypes.c_int64]]:
    return [(ctypes.c_int64 * max(1, len(column)))(*column) for column in columns]
