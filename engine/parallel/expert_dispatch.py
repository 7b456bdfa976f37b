"""Experts whole on the ranks of a group: tokens travel to them (DeepSeek-V3, section 3.2.2).

Suffixes: S own tokens that this rank sends, N rows that have come, P pairs of a row and a local
expert, W ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.engine.model.dispatch import Dispatched, DispatchHandle
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.payload import Rows
from leadline.engine.parallel.placement import ExpertPlacement
from leadline.kernels.api import Permutation


@dataclass(slots=True)
class SentTokens:
    """How the tokens of this rank went out.

    Attributes:
        num_tokens: of the whole tensor parallel group.
        order: (token, choice) pairs sorted by rank.
        token: the token of each row that went, ordered by rank; None where all went to all.
        num_rows: rows that went to each rank.
    """

    num_tokens: int
    order: Permutation
    token: Tensor | None
    num_rows: list[int]


@dataclass(slots=True)
class ArrivedRows:
    """What has come from all ranks, in rank order.

    Attributes:
        num_rows: from each rank.
        row, weights: of each (row, local expert) pair, ordered by row, then by choice.
        num_pairs: of the rows from each rank.
    """

    num_rows: list[int]
    row: Tensor
    weights: Tensor
    num_pairs: list[int]


@dataclass(slots=True)
class ExpertHandle(DispatchHandle):
    """`permutation` and `weights_TK` are those of the pairs that have come."""

    sent: SentTokens
    arrived: ArrivedRows
    own_weights_SK: Tensor


class ExpertParallelDispatcher:
    """Of one layer. Tensor parallel ranks, which have the same tokens, send a share of them each.

    A token goes once to each rank that has an expert of it. Small batches go from all to all as
    they are, padded to the largest (`ExpertExchange.capacity`); larger ones with counts of their
    own, which are exchanged before. Any rank may have no token.
    """

    def __init__(self, exchange: ExpertExchange, placement: ExpertPlacement) -> None:
        self._exchange = exchange
        self.placement = placement
        self._ep = exchange.parallel.ep
        self._tp = exchange.parallel.tp
        self.expert_ids: Sequence[int] = placement.expert_ids(self._ep.rank)

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """See `TokenDispatcher.dispatch`."""
        with self._exchange.meter.time():
            share = _share(len(x_TD), self._tp.rank, self._tp.size)
            slots_SK = self.placement.choose(ids_TK[share])
            own = Rows(x_TD[share], slots_SK, weights_TK[share])
            rank_SK = slots_SK // self.placement.slots_per_rank
            pairs_W = rank_SK.flatten().bincount(minlength=self._ep.size)
            order = Permutation(rank_SK.flatten().argsort(stable=True), pairs_W)
            capacity = self._exchange.capacity
            if capacity is not None and capacity <= self._exchange.small_batch:
                came, num_rows = self._send_all(own, -(-capacity // self._tp.size))
                sent = SentTokens(len(x_TD), order, None, num_rows)
            else:
                came, num_rows, token, went = self._send_each(own, rank_SK)
                sent = SentTokens(len(x_TD), order, token, went)
            self._exchange.meter.counts.num_layers += 1
            self._exchange.meter.counts.num_tokens += len(own.x_ND)
            return self._for_experts(came, num_rows, sent, own.weights_NK)

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """See `TokenDispatcher.combine`."""
        assert isinstance(handle, ExpertHandle)
        with self._exchange.meter.time():
            ones = torch.ones_like(handle.weights_TK)
            y_PD = self._exchange.kernels.unpermute(y_RD, handle.permutation, ones)
            if self._exchange.exact:
                y_SD = self._return_each(y_PD, handle)
            else:
                y_SD = self._return_sums(y_PD, handle)
            num_tokens = handle.sent.num_tokens
            padding = -(-num_tokens // self._tp.size) - len(y_SD)
            if padding:
                y_SD = torch.nn.functional.pad(y_SD, (0, 0, 0, padding))
            return self._tp.all_gather(y_SD, 0)[:num_tokens]

    def _send_all(self, own: Rows, capacity: int) -> tuple[Rows, list[int]]:
        """Every row to every rank."""
        ep, payload = self._ep, self._exchange.payload
        packed = payload.pack(own)
        padded = packed.new_full((capacity, packed.shape[1]), 255)
        padded[: len(packed)] = packed
        self._exchange.meter.counts.num_bytes += padded.nbytes * (ep.size - 1)
        came = payload.unpack(ep.all_gather(padded, 0), own)
        per_rank = self.placement.slots_per_rank
        is_here = came.slots_NK // per_rank == ep.rank
        came.slots_NK = torch.where(is_here, came.slots_NK % per_rank, -1)
        return came, [capacity] * ep.size

    def _send_each(self, own: Rows, rank_SK: Tensor) -> tuple[Rows, list[int], Tensor, list[int]]:
        """Each row to the ranks that have experts of it."""
        ep, payload = self._ep, self._exchange.payload
        ranks_W = torch.arange(ep.size, device=rank_SK.device)
        goes_WS = (rank_SK == ranks_W[:, None, None]).any(-1)
        rank, token = goes_WS.nonzero(as_tuple=True)
        local_SK = own.slots_NK % self.placement.slots_per_rank
        is_there = rank_SK[token] == rank[:, None]
        slots = torch.where(is_there, local_SK[token], -1)
        went_W = goes_WS.sum(1)
        ones = [1] * ep.size
        came_W = ep.all_to_all(went_W, ones, ones)
        went, num_rows = went_W.tolist(), came_W.tolist()
        packed = payload.pack(Rows(own.x_ND[token], slots, own.weights_NK[token]))
        row_bytes = packed.shape[1]
        self._exchange.meter.counts.num_bytes += (len(packed) - went[ep.rank]) * row_bytes
        came = payload.unpack(ep.all_to_all(packed, went, num_rows), own)
        return came, num_rows, token, went

    def _for_experts(
        self, came: Rows, num_rows: list[int], sent: SentTokens, own_weights_SK: Tensor
    ) -> Dispatched:
        """Each (row, local expert) pair as a row, sorted by expert."""
        row, choice = (came.slots_NK >= 0).nonzero(as_tuple=True)
        slots_P1 = came.slots_NK[row, choice].unsqueeze(1).to(torch.int64)
        weights_P1 = came.weights_NK[row, choice].unsqueeze(1)
        source_N = torch.arange(self._ep.size, device=row.device).repeat_interleave(
            torch.tensor(num_rows, device=row.device)
        )
        num_pairs = source_N[row].bincount(minlength=self._ep.size).tolist()
        x_RD, permutation = self._exchange.kernels.permute(
            came.x_ND[row], slots_P1, len(self.expert_ids)
        )
        arrived = ArrivedRows(num_rows, row, weights_P1, num_pairs)
        handle = ExpertHandle(permutation, weights_P1, sent, arrived, own_weights_SK)
        return Dispatched(x_RD, permutation.counts, handle)

    def _return_each(self, y_PD: Tensor, handle: ExpertHandle) -> Tensor:
        """Outputs one by one, summed in routing order."""
        order = handle.sent.order
        self._count_sent(y_PD, handle.arrived.num_pairs)
        y_RD = self._ep.all_to_all(y_PD, handle.arrived.num_pairs, order.counts.tolist())
        return self._exchange.kernels.unpermute(y_RD, order, handle.own_weights_SK)

    def _return_sums(self, y_PD: Tensor, handle: ExpertHandle) -> Tensor:
        """For each row that came the weighted sum of what is computed here."""
        sent, arrived = handle.sent, handle.arrived
        sums = y_PD.new_zeros(sum(arrived.num_rows), y_PD.shape[1], dtype=torch.float32)
        sums.index_add_(0, arrived.row, y_PD.float() * arrived.weights)
        sums_ND = sums.to(y_PD.dtype)
        self._count_sent(sums_ND, arrived.num_rows)
        num_own = len(handle.own_weights_SK)
        if sent.token is None:
            return self._ep.reduce_scatter(sums_ND)[:num_own]
        came = self._ep.all_to_all(sums_ND, arrived.num_rows, sent.num_rows)
        y_SD = y_PD.new_zeros(num_own, y_PD.shape[1], dtype=torch.float32)
        return y_SD.index_add_(0, sent.token, came.float()).to(y_PD.dtype)

    def _count_sent(self, rows: Tensor, counts: list[int]) -> None:
        row_bytes = rows.shape[1] * rows.itemsize
        num_others = sum(counts) - counts[self._ep.rank]
        self._exchange.meter.counts.num_bytes += num_others * row_bytes


def _share(num_tokens: int, rank: int, size: int) -> slice:
    width = -(-num_tokens // size)
    return slice(min(rank * width, num_tokens), min((rank + 1) * width, num_tokens))
