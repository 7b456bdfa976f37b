"""Moves the weights of experts between ranks, between two steps; see `ExpertBalancer`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.engine.expert_balance.balancer import Counts
from leadline.engine.expert_balance.expert_map import ExpertMap
from leadline.engine.expert_balance.moves import Chunk, Transfer
from leadline.engine.model.mlp import MoE
from leadline.engine.parallel.byte_checksum import checksum
from leadline.engine.parallel.collectives import Collectives
from leadline.engine.parallel.expert_dispatch import ExpertParallelDispatcher
from leadline.engine.parallel.replicas import ReplicaPlacement

_STEP, _MODULUS = 1_000_003, 2**61 - 1  # of the checksum over parts


@dataclass(slots=True)
class MovableLayer:
    """A layer whose experts lie on several ranks."""

    moe: MoE
    dispatcher: ExpertParallelDispatcher
    placement: ReplicaPlacement


@dataclass(slots=True)
class Arrivals:
    """What is on its way for a layer.

    Attributes:
        staged: an expert's weights as they come, by the index of their transfer.
        sent: checksums of what this rank has sent, by transfer; 0 for the transfers of others.
        came: of what has come to this rank.
    """

    layer: int
    moves: Sequence[Transfer]
    staged: dict[int, Tensor]
    sent: list[int]
    came: list[int]

    @staticmethod
    def note(digests: list[int], index: int, part: Tensor) -> None:
        """One more part of a transfer."""
        digests[index] = (digests[index] * _STEP + checksum(part)) % _MODULUS


class ExpertMover:
    """`BalancedUnit` over a group's collectives.

    Beside the weights in use it holds those that come for one layer: an expert's bytes for each
    slot of this rank that changes.
    """

    def __init__(self, ep: Collectives, layers: Mapping[int, MovableLayer]) -> None:
        """`layers`: at least one, by their number, the same on every rank of `ep`."""
        self._ep = ep
        self._layers = dict(layers)
        self._device = next(iter(layers.values())).moe.expert_bytes()[0].device
        self._arrivals: Arrivals | None = None

    @property
    def is_first(self) -> bool:
        """See `BalancedUnit.is_first`."""
        return self._ep.rank == 0

    @property
    def maps(self) -> dict[int, ExpertMap]:
        """Of each layer, as it is."""
        return {number: layer.placement.current for number, layer in self._layers.items()}

    def load(self) -> Counts:
        """See `BalancedUnit.load`."""
        return {number: layer.moe.expert_load() for number, layer in self._layers.items()}

    def sum(self, values: Sequence[int]) -> list[int]:
        """See `BalancedUnit.sum`."""
        own = torch.tensor(values, dtype=torch.int64, device=self._device)
        total = self._ep.all_reduce(own)
        result: list[int] = total.tolist()
        return result

    def expert_bytes(self, layer: int) -> int:
        """See `BalancedUnit.expert_bytes`."""
        return sum(part.shape[1] for part in self._layers[layer].moe.expert_bytes())

    def begin_layer(self, layer: int, moves: Sequence[Transfer]) -> None:
        """See `BalancedUnit.begin_layer`."""
        parts, size = self._layers[layer].moe.expert_bytes(), self.expert_bytes(layer)
        staged = {
            index: parts[0].new_empty(size)
            for index, move in enumerate(moves)
            if self._is_here(layer, move.target)
        }
        self._arrivals = Arrivals(layer, moves, staged, [0] * len(moves), [0] * len(moves))

    def exchange(self, chunks: Sequence[Chunk]) -> None:
        """See `BalancedUnit.exchange`."""
        arrivals = self._moving
        send, receive = [0] * self._ep.size, [0] * self._ep.size
        outgoing: list[list[Tensor]] = [[] for _ in send]
        incoming: list[list[Chunk]] = [[] for _ in receive]
        width = self._layers[arrivals.layer].placement.slots_per_rank
        for chunk in chunks:
            move = arrivals.moves[chunk.index]
            source, target = move.source // width, move.target // width
            if source == self._ep.rank:
                pieces = self._read(move.source % width, chunk.begin, chunk.end)
                outgoing[target] += pieces
                send[target] += chunk.end - chunk.begin
                arrivals.note(arrivals.sent, chunk.index, torch.cat(pieces))
            if target == self._ep.rank:
                incoming[source].append(chunk)
                receive[source] += chunk.end - chunk.begin
        nothing = self._layers[arrivals.layer].moe.expert_bytes()[0].new_empty(0)
        leaving = torch.cat([nothing, *(piece for pieces in outgoing for piece in pieces)])
        came = self._ep.all_to_all(leaving, send, receive)
        begin = 0
        for chunk in (chunk for chunks in incoming for chunk in chunks):
            part = arrivals.staged[chunk.index][chunk.begin : chunk.end]
            part.copy_(came[begin : begin + len(part)])
            begin += len(part)
            arrivals.note(arrivals.came, chunk.index, part)

    def num_damaged(self) -> int:
        """See `BalancedUnit.num_damaged`."""
        arrivals, num_moves = self._moving, len(self._moving.moves)
        digests = self.sum(arrivals.sent + arrivals.came)
        pairs = zip(digests[:num_moves], digests[num_moves:], strict=True)
        return sum(sent != came for sent, came in pairs)

    def end_layer(self, new: ExpertMap | None) -> None:
        """See `BalancedUnit.end_layer`."""
        arrivals, self._arrivals = self._moving, None
        if new is None:
            return
        layer = self._layers[arrivals.layer]
        for index, weights in arrivals.staged.items():
            slot, begin = arrivals.moves[index].target % layer.placement.slots_per_rank, 0
            for part in layer.moe.expert_bytes():
                part[slot] = weights[begin : begin + part.shape[1]]
                begin += part.shape[1]

        def take() -> None:
            layer.placement.replace(new)
            layer.dispatcher.expert_ids = layer.placement.expert_ids(self._ep.rank)

        layer.moe.change_experts(take)

    @property
    def _moving(self) -> Arrivals:
        assert self._arrivals is not None, "no layer is moving"
        return self._arrivals

    def _is_here(self, layer: int, slot: int) -> bool:
        return slot // self._layers[layer].placement.slots_per_rank == self._ep.rank

    def _read(self, slot: int, begin: int, end: int) -> list[Tensor]:
        """Bytes [begin, end) of the weights in a slot of this rank, piece by piece."""
        pieces = []
        for part in self._layers[self._moving.layer].moe.expert_bytes():
            if begin < part.shape[1] and end > 0:
                pieces.append(part[slot, max(begin, 0) : end])
            begin -= part.shape[1]
            end -= part.shape[1]
        return pieces
