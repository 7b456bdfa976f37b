"""Keeps the experts of a unit balanced while it serves: a little work between any two steps.

Every rank has one, and all take the same turns, since they step in lock-step and whatever decides
on a turn is agreed between them:

1. watch: after a window of steps the load of all ranks is summed;
2. plan: the first rank chooses new maps in a thread of its own; now and then all ask it for them;
3. move: layer by layer, a few megabytes a step, into memory beside the weights in use;
4. switch: where every rank finds what has come to have the sender's checksums, all take the new map
   of the layer before the next step; else the layer stays as it is.

Tokens find an expert's weights unchanged wherever they are, so that no answer depends on it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from leadline.engine.expert_balance.balance_counts import BalanceCounts
from leadline.engine.expert_balance.decision import Decision, decide
from leadline.engine.expert_balance.expert_map import ExpertMap
from leadline.engine.expert_balance.moves import Chunk, Transfer, rounds, transfers
from leadline.engine.expert_balance.placement import ExpertLayout

Counts = dict[int, list[int]]

POLL_STEPS = 8  # so often the first rank is asked whether it has chosen
_SCALE = 1_000_000  # of shares that travel as integers


class BalancedUnit(Protocol):
    """What the balancer asks of its rank, and of the others through it.

    `sum`, `exchange` and `num_damaged` are collective: every rank calls them in the same turn.
    """

    @property
    def is_first(self) -> bool:
        """Whether this is the first rank."""
        ...

    def load(self) -> Counts:
        """Of each layer, pairs that this rank has computed since start, by expert."""
        ...

    def sum(self, values: Sequence[int]) -> list[int]:
        """Over all ranks, value by value."""
        ...

    def expert_bytes(self, layer: int) -> int:
        """Weights of one expert."""
        ...

    def begin_layer(self, layer: int, moves: Sequence[Transfer]) -> None:
        """Make room for what comes to this rank."""
        ...

    def exchange(self, chunks: Sequence[Chunk]) -> None:
        """Send and receive these parts of the layer's moves."""
        ...

    def num_damaged(self) -> int:
        """Transfers of the layer, to any rank, that differ from what was to be sent."""
        ...

    def end_layer(self, new: ExpertMap | None) -> None:
        """Take the new weights and map; None to drop what has come."""
        ...


@dataclass(slots=True)
class LayerMove:
    """A layer that is on its way."""

    layer: int
    new: ExpertMap
    moves: list[Transfer]
    left: Iterator[list[Chunk]]


class ExpertBalancer:
    """See the module.

    Attributes:
        unit: the ranks.
        layout: ranks and slots.
        counts: what has come of it.
        maps: of each layer with experts, as they are.
    """

    def __init__(
        self,
        unit: BalancedUnit,
        layout: ExpertLayout,
        maps: Mapping[int, ExpertMap],
        *,
        window_steps: int,
        round_bytes: int,
        submit: Callable[..., Future[Decision]] | None = None,
    ) -> None:
        """A balancer at rest.

        Args:
            unit: the ranks.
            layout: ranks and slots.
            maps: of each layer with experts.
            window_steps: steps whose load decides.
            round_bytes: most that a rank sends or receives between two steps.
            submit: runs a function elsewhere; None for a thread.
        """
        self.counts = BalanceCounts()
        self.maps = dict(maps)
        self.unit = unit
        self.layout = layout
        self._window_steps = window_steps
        self._round_bytes = round_bytes
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadline-balance")
        self._submit = submit or self._thread.submit
        self._num_steps = 0
        self._last_load = unit.load()
        self._is_planning = False
        self._future: Future[Decision] | None = None
        self._waiting: dict[int, ExpertMap] = {}
        self._moving: LayerMove | None = None

    def between_steps(self) -> None:
        """A turn; every rank takes it before each step."""
        self._num_steps += 1
        if self._moving is not None:
            self._move(self._moving)
        elif self._waiting:
            self._begin_layer()
        elif self._is_planning:
            if self._num_steps % POLL_STEPS == 0:
                self._poll()
        elif self._num_steps >= self._window_steps:
            self._end_window()

    def _end_window(self) -> None:
        """Sum the ranks' loads, and let the first one decide."""
        own = self.unit.load()
        layers = list(self.maps)
        pairs = [zip(own[layer], self._last_load[layer], strict=True) for layer in layers]
        total = self.unit.sum([now - before for layer in pairs for now, before in layer])
        width = self.layout.num_experts
        loads = {layer: total[i * width : (i + 1) * width] for i, layer in enumerate(layers)}
        self._last_load = own
        self._num_steps = 0
        self._is_planning = True
        if self.unit.is_first:
            self._future = self._submit(decide, loads, dict(self.maps), self.layout)

    def _poll(self) -> None:
        """Take the decision, on every rank or on none."""
        decision = None
        if self._future is not None and self._future.done():
            decision = self._future.result()
        if not self.unit.sum([decision is not None])[0]:
            return
        self._future = None
        self._is_planning = False
        self._take(self.unit.sum(self._encode(decision)))

    def _encode(self, decision: Decision | None) -> list[int]:
        """The decision as integers; nothing but zeros from those that have none."""
        num_slots = self.layout.num_ranks * self.layout.slots_per_rank
        if decision is None:
            return [0] * (2 + len(self.maps) * num_slots)
        values = [round(decision.balancedness * _SCALE), round(decision.predicted * _SCALE)]
        for layer, current in self.maps.items():
            values += decision.maps.get(layer, current).slots
        return values

    def _take(self, values: list[int]) -> None:
        self.counts.balancedness, self.counts.predicted = (v / _SCALE for v in values[:2])
        num_slots = self.layout.num_ranks * self.layout.slots_per_rank
        for i, (layer, current) in enumerate(self.maps.items()):
            slots = tuple(values[2 + i * num_slots : 2 + (i + 1) * num_slots])
            if slots != current.slots:
                self._waiting[layer] = ExpertMap(current.num_experts, current.num_ranks, slots)
        self.counts.num_windows += 1
        self.counts.num_skipped += not self._waiting

    def _begin_layer(self) -> None:
        layer = next(iter(self._waiting))
        new, current = self._waiting.pop(layer), self.maps[layer]
        ranks_per_node = self.layout.num_ranks // self.layout.num_nodes
        moves = transfers(current, new, ranks_per_node)
        size = self.unit.expert_bytes(layer)
        left = rounds(moves, current.slots_per_rank, size, self._round_bytes)
        self.unit.begin_layer(layer, moves)
        self._moving = LayerMove(layer, new, moves, left)

    def _move(self, moving: LayerMove) -> None:
        chunks = next(moving.left, None)
        if chunks is not None:
            self.unit.exchange(chunks)
            self.counts.num_moved_bytes += sum(
                chunk.end - chunk.begin for chunk in chunks if self._travels(moving, chunk)
            )
            return
        self._moving = None
        if self.unit.num_damaged():
            self.unit.end_layer(None)
            self.counts.num_refused_layers += 1
            return
        self.unit.end_layer(moving.new)
        self.maps[moving.layer] = moving.new
        self.counts.num_switched_layers += 1

    @staticmethod
    def _travels(moving: LayerMove, chunk: Chunk) -> bool:
        move = moving.moves[chunk.index]
        return moving.new.rank_of(move.source) != moving.new.rank_of(move.target)
