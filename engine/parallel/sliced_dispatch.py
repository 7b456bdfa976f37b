"""A slice of every expert on every rank: all tokens go to all ranks, and partial sums come back."""

from dataclasses import dataclass

from torch import Tensor

from leadline.engine.model.dispatch import Dispatched, DispatchHandle
from leadline.engine.parallel.exchange import ExpertExchange
from leadline.engine.parallel.payload import Rows


@dataclass(slots=True)
class SlicedHandle(DispatchHandle):
    """`permutation` and `weights_TK` are those of the tokens of all data parallel ranks.

    Attributes:
        num_tokens: of this rank.
        place: where each token of all ranks lies among the padded ones.
        num_places: of these.
    """

    num_tokens: int
    place: Tensor
    num_places: int


class SlicedDispatcher:
    """Experts cut by width over all ranks: tensor parallelism of the experts."""

    def __init__(self, exchange: ExpertExchange, num_experts: int) -> None:
        self._exchange = exchange
        self._dp = exchange.parallel.dp
        self._tp = exchange.parallel.tp
        self.expert_ids = range(num_experts)

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """See `TokenDispatcher.dispatch`; `ExpertExchange.capacity` must be known."""
        exchange = self._exchange
        with exchange.meter.time():
            own = Rows(x_TD, ids_TK, weights_TK)
            packed = exchange.payload.pack(own)
            capacity = len(x_TD) if self._dp.size == 1 else exchange.capacity
            assert capacity is not None, "plan() comes before dispatch()"
            padded = packed.new_full((capacity, packed.shape[1]), 255)
            padded[: len(packed)] = packed
            came = exchange.payload.unpack(self._dp.all_gather(padded, 0), own)
            is_token = came.slots_NK[:, 0] >= 0
            x_RD, permutation = exchange.kernels.permute(
                came.x_ND[is_token], came.slots_NK[is_token].to(ids_TK.dtype), len(self.expert_ids)
            )
            exchange.meter.counts.num_layers += 1
            exchange.meter.counts.num_tokens += len(x_TD)
            exchange.meter.counts.num_bytes += padded.nbytes * (self._dp.size - 1)
            place = is_token.nonzero().squeeze(1)
            weights = came.weights_NK[is_token]
            handle = SlicedHandle(permutation, weights, len(x_TD), place, len(is_token))
            return Dispatched(x_RD, permutation.counts, handle)

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """See `TokenDispatcher.combine`: the slices of all ranks are added."""
        assert isinstance(handle, SlicedHandle)
        with self._exchange.meter.time():
            sums = self._exchange.kernels.unpermute(y_RD, handle.permutation, handle.weights_TK)
            padded = sums.new_zeros(handle.num_places, sums.shape[1])
            padded[handle.place] = sums
            counts = self._exchange.meter.counts
            counts.num_bytes += padded.nbytes // self._dp.size * (self._dp.size - 1)
            own = self._dp.reduce_scatter(padded)[: handle.num_tokens]
            counts.num_bytes += own.nbytes * (self._tp.size - 1)
            return self._tp.all_reduce(own)
