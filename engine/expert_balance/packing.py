"""How often each expert is held, and on which ranks: greedy, then improved by swaps."""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Loads = NDArray[np.float64]
Bins = list[list[int]]

_SWAPS_PER_BIN = 32  # at most; a layer of V3 on 32 ranks takes about one
_LEAST_GAIN = 1e-9  # of the mean load; less is noise of the arithmetic


def replicate(load: Loads, num_slots: int, max_replicas: int) -> list[int]:
    """Replicas of each expert that make the largest share of a replica as small as it can be.

    Args:
        load: of each expert [E].
        num_slots: of all experts together, at least E and at most E * max_replicas.
        max_replicas: of one expert: the ranks there are.
    """
    num_experts = len(load)
    assert num_experts <= num_slots <= num_experts * max_replicas, "slots that cannot be filled"
    counts = [1] * num_experts
    heap = [(-float(share), 1, expert) for expert, share in enumerate(load)]
    heapq.heapify(heap)
    for _ in range(num_slots - num_experts):
        _, count, expert = heapq.heappop(heap)
        counts[expert] = count + 1
        if count + 1 < max_replicas:
            heapq.heappush(heap, (-float(load[expert]) / (count + 1), count + 1, expert))
    return counts


def pack(shares: Loads, counts: Sequence[int], num_bins: int) -> Bins:
    """Spread `counts[i]` copies of each item over bins of equal size, no two in one bin.

    Largest first, each into the lightest bin that has room and not the same item.

    Args:
        shares: load of one copy of each item.
        counts: copies of each item, at most `num_bins` each; their sum is a multiple of it.
        num_bins: bins, all of the same size.

    Returns:
        The items of each bin.
    """
    capacity, rest = divmod(sum(counts), num_bins)
    assert rest == 0, "bins that cannot be filled evenly"
    assert max(counts) <= num_bins, "two copies in one bin"
    bins: Bins = [[] for _ in range(num_bins)]
    loads = np.zeros(num_bins)
    is_full = np.zeros(num_bins, bool)
    for item in sorted(range(len(counts)), key=lambda item: (-shares[item], item)):
        has_item = np.zeros(num_bins, bool)
        for _ in range(counts[item]):
            number = int(np.where(is_full | has_item, np.inf, loads).argmin())
            if is_full[number] or has_item[number]:
                number = _make_room(bins, loads, shares, is_full, has_item)
            bins[number].append(item)
            loads[number] += shares[item]
            has_item[number] = True
            is_full[number] = len(bins[number]) == capacity
    return bins


def _make_room(
    bins: Bins,
    loads: Loads,
    shares: Loads,
    is_full: NDArray[np.bool_],
    has_item: NDArray[np.bool_],
) -> int:
    """Every bin with room has the item already: a full one without it gives it another item.

    There is such a pair, since the full bin holds more items than the one with room.
    """
    giver = int(np.where(has_item, np.inf, loads).argmin())
    taker = int(np.where(is_full, np.inf, loads).argmin())
    given = next(other for other in bins[giver] if other not in bins[taker])
    bins[giver].remove(given)
    bins[taker].append(given)
    loads[giver] -= shares[given]
    loads[taker] += shares[given]
    is_full[taker] = len(bins[taker]) == len(bins[giver]) + 1
    return giver


def improve(bins: Bins, shares: Loads) -> None:
    """Swap items between the heaviest bin and others for as long as that makes it lighter."""
    items = np.array(bins)
    num_bins = len(bins)
    held = np.zeros((num_bins, len(shares)), bool)
    np.put_along_axis(held, items, True, axis=1)
    loads = shares[items].sum(axis=1)
    least_gain = _LEAST_GAIN * float(loads.mean())
    for _ in range(_SWAPS_PER_BIN * num_bins):
        heavy = int(loads.argmax())
        own = items[heavy]
        moved = shares[own][:, None, None] - shares[items][None]
        peak = np.maximum(loads[heavy] - moved, loads[None, :, None] + moved)
        is_legal = ~held[:, own].T[:, :, None] & ~held[heavy][items][None]
        peak = np.where(is_legal, peak, np.inf)
        peak[:, heavy] = np.inf
        i, other, j = map(int, np.unravel_index(int(peak.argmin()), peak.shape))
        if not peak[i, other, j] < loads[heavy] - least_gain:
            break
        given, taken = int(own[i]), int(items[other, j])
        items[heavy, i], items[other, j] = taken, given
        held[heavy, given] = held[other, taken] = False
        held[heavy, taken] = held[other, given] = True
        loads[[heavy, other]] = shares[items[[heavy, other]]].sum(axis=1)
    bins[:] = items.tolist()
