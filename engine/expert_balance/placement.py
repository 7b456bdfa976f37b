"""Chooses the slots of a layer's experts by their load."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from leadline.engine.errors import ConfigError
from leadline.engine.expert_balance.alignment import align
from leadline.engine.expert_balance.expert_map import (
    EMPTY,
    ExpertMap,
    balancedness,
    initial_map,
)
from leadline.engine.expert_balance.packing import Bins, Loads, improve, pack, replicate
from leadline.engine.expert_balance.slots import slots_per_rank

NODE_WORTH = 0.01  # balancedness given up to keep the router's groups of experts on one node
MOVE_WORTH = 0.02  # balancedness given up to leave all experts where they are


class ExpertLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The ranks that experts are placed on.

    Attributes:
        num_redundant: slots beyond one for each expert.
        num_nodes: of equal size, in rank order.
        num_groups: the router's groups of experts (DeepSeek-V3, section 2.1.2), of equal size.
        dead_ranks: hold nothing.
    """

    num_experts: int
    num_ranks: int
    num_redundant: int = 0
    num_nodes: int = 1
    num_groups: int = 1
    dead_ranks: frozenset[int] = frozenset()

    @property
    def slots_per_rank(self) -> int:
        """Experts that each rank holds."""
        return slots_per_rank(self.num_experts, self.num_ranks, self.num_redundant)

    @property
    def living_ranks(self) -> list[int]:
        """Ranks that hold experts."""
        return [rank for rank in range(self.num_ranks) if rank not in self.dead_ranks]

    @property
    def nodes(self) -> list[list[int]]:
        """The ranks of each node."""
        width = self.num_ranks // self.num_nodes
        return [list(range(n * width, (n + 1) * width)) for n in range(self.num_nodes)]

    @property
    def is_hierarchical(self) -> bool:
        """Whether whole groups of experts can be given to nodes."""
        nodes = self.num_nodes
        if nodes == 1 or self.num_groups % nodes or self.num_ranks % nodes or self.dead_ranks:
            return False
        return self.slots_per_rank <= self.num_experts // nodes

    def check(self) -> None:
        """Whether the living ranks hold every expert.

        Raises:
            ConfigError: they do not, or the slots cannot be spread evenly.
        """
        num_living = len(self.living_ranks)
        if self.slots_per_rank * num_living < self.num_experts:
            raise ConfigError(
                f"{num_living} ranks of {self.slots_per_rank} experts cannot hold "
                f"{self.num_experts}; allowed: at least "
                f"{-(-self.num_experts // self.slots_per_rank)} living ranks"
            )


def place(
    load: Sequence[float] | NDArray[np.float64],
    layout: ExpertLayout,
    current: ExpertMap | None = None,
) -> ExpertMap:
    """The best of several placements of a layer, by balance, locality and moves.

    Candidates are the current map improved by swaps, a global placement and, where groups fit
    nodes, a hierarchical one. None is taken that balances worse than the current map, or than the
    experts in order.

    Args:
        load: of each expert [E], at least 0.
        layout: ranks and slots.
        current: where the experts are now; None if nowhere.

    Raises:
        ConfigError: see `ExpertLayout.check`.
    """
    layout.check()
    loads = np.asarray(load, np.float64)
    known = [] if layout.dead_ranks else [_initial(layout)]
    candidates = []
    if current is not None and _can_stay(current, layout):
        candidates.append(_swapped(loads, current))
        known.append(current)
    candidates.append(_aligned(global_map(loads, layout), current, [layout.living_ranks]))
    if layout.is_hierarchical:
        candidates.append(_aligned(hierarchical_map(loads, layout), current, layout.nodes))
    candidates += known
    floor = max((_balance(candidate, loads, layout) for candidate in known), default=0.0)
    good = [c for c in candidates if _balance(c, loads, layout) >= floor]
    return max(good, key=lambda candidate: _objective(candidate, loads, layout, current))


def global_map(load: Loads, layout: ExpertLayout, *, swaps: bool = True) -> ExpertMap:
    """Replicas by load over all living ranks, nodes disregarded."""
    ranks = layout.living_ranks
    num_slots = layout.slots_per_rank * len(ranks)
    num_filled = min(num_slots, layout.num_experts * len(ranks))
    bins = _fill(load, range(layout.num_experts), num_filled, len(ranks), swaps=swaps)
    return _map_of(dict(zip(ranks, bins, strict=True)), layout)


def hierarchical_map(load: Loads, layout: ExpertLayout, *, swaps: bool = True) -> ExpertMap:
    """Groups of experts to nodes, then replicas by load within each node."""
    group_size = layout.num_experts // layout.num_groups
    group_loads = load.reshape(layout.num_groups, group_size).sum(axis=1)
    nodes = pack(group_loads, [1] * layout.num_groups, layout.num_nodes)
    if swaps:
        improve(nodes, group_loads)
    ranks_per_node = layout.num_ranks // layout.num_nodes
    num_slots = layout.slots_per_rank * ranks_per_node
    bins: Bins = []
    for groups in nodes:
        experts = [g * group_size + i for g in groups for i in range(group_size)]
        bins += _fill(load, experts, num_slots, ranks_per_node, swaps=swaps)
    return _map_of(dict(enumerate(bins)), layout)


def _fill(
    load: Loads, experts: Sequence[int], num_slots: int, num_bins: int, *, swaps: bool
) -> Bins:
    """Replicas of some experts in bins."""
    own = load[list(experts)]
    counts = replicate(own, num_slots, num_bins)
    shares = own / np.array(counts)
    bins = pack(shares, counts, num_bins)
    if swaps:
        improve(bins, shares)
    return [[experts[i] for i in items] for items in bins]


def _map_of(bins: dict[int, list[int]], layout: ExpertLayout) -> ExpertMap:
    width = layout.slots_per_rank
    slots = [EMPTY] * (layout.num_ranks * width)
    for rank, experts in bins.items():
        slots[rank * width : rank * width + len(experts)] = experts
    return ExpertMap(layout.num_experts, layout.num_ranks, tuple(slots))


def _initial(layout: ExpertLayout) -> ExpertMap:
    return initial_map(layout.num_experts, layout.num_ranks, layout.num_redundant)


def _swapped(load: Loads, current: ExpertMap) -> ExpertMap:
    """The current map, with swaps between ranks that make it better."""
    if EMPTY in current.slots:
        return current
    counts = np.bincount(current.slots, minlength=current.num_experts)
    bins = [list(current.on_rank(rank)) for rank in range(current.num_ranks)]
    improve(bins, load / counts)
    slots = tuple(expert for experts in bins for expert in experts)
    return ExpertMap(current.num_experts, current.num_ranks, slots)


def _aligned(
    new: ExpertMap, current: ExpertMap | None, nodes: Sequence[Sequence[int]]
) -> ExpertMap:
    return new if current is None else align(new, current, nodes)


def _can_stay(current: ExpertMap, layout: ExpertLayout) -> bool:
    """Whether the living ranks hold every expert as they are."""
    used = {current.rank_of(slot) for slot, expert in enumerate(current.slots) if expert != EMPTY}
    return current.is_complete and not used & layout.dead_ranks


def _balance(candidate: ExpertMap, load: Loads, layout: ExpertLayout) -> float:
    return balancedness(candidate.rank_loads(load), layout.dead_ranks)


def _objective(
    candidate: ExpertMap, load: Loads, layout: ExpertLayout, current: ExpertMap | None
) -> float:
    """Balancedness, and what locality and standing still are worth."""
    value = _balance(candidate, load, layout)
    if layout.is_hierarchical and is_local(candidate, layout):
        value += NODE_WORTH
    if current is not None:
        pairs = zip(candidate.slots, current.slots, strict=True)
        value -= MOVE_WORTH * sum(a != b for a, b in pairs) / len(current.slots)
    return value


def is_local(candidate: ExpertMap, layout: ExpertLayout) -> bool:
    """Whether each of the router's groups has its slots on one node."""
    group_size = layout.num_experts // layout.num_groups
    ranks_per_node = layout.num_ranks // layout.num_nodes
    places = {
        (expert // group_size, candidate.rank_of(slot) // ranks_per_node)
        for slot, expert in enumerate(candidate.slots)
        if expert != EMPTY
    }
    return len(places) == len({group for group, _ in places})
