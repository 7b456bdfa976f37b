"""Placements of experts, whatever the load: complete, even, and no worse than what was there."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from leadline.engine.errors import ConfigError
from leadline.engine.expert_balance.alignment import align
from leadline.engine.expert_balance.expert_map import (
    EMPTY,
    ExpertMap,
    balancedness,
    initial_map,
    slots_per_rank,
)
from leadline.engine.expert_balance.packing import improve, pack, replicate
from leadline.engine.expert_balance.placement import (
    ExpertLayout,
    global_map,
    hierarchical_map,
    is_local,
    place,
)


@st.composite
def layouts(draw: st.DrawFn, max_nodes: int = 12) -> ExpertLayout:
    num_ranks = draw(st.integers(1, 12))
    width = draw(st.integers(1, 6))
    num_groups = draw(st.integers(1, 4))
    group_size = draw(st.integers(1, max(1, num_ranks * width // num_groups)))
    num_experts = num_groups * group_size
    assume(width <= num_experts <= num_ranks * width)
    divisors = [n for n in range(1, num_ranks + 1) if num_ranks % n == 0 and n <= max_nodes]
    return ExpertLayout(
        num_experts=num_experts,
        num_ranks=num_ranks,
        num_redundant=num_ranks * width - num_experts,
        num_nodes=draw(st.sampled_from(divisors)),
        num_groups=num_groups,
    )


@st.composite
def hierarchical_layouts(draw: st.DrawFn) -> ExpertLayout:
    num_nodes = draw(st.integers(2, 3))
    ranks, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    experts = groups * draw(st.integers(1, 4))
    width = draw(st.integers(-(-experts // ranks), experts))
    return ExpertLayout(
        num_experts=num_nodes * experts,
        num_ranks=num_nodes * ranks,
        num_redundant=num_nodes * (ranks * width - experts),
        num_nodes=num_nodes,
        num_groups=num_nodes * groups,
    )


def loads_for(layout: ExpertLayout) -> st.SearchStrategy[list[int]]:
    size = layout.num_experts
    return st.lists(st.integers(0, 10_000), min_size=size, max_size=size)


def balance_of(placed: ExpertMap, load: list[int], layout: ExpertLayout) -> float:
    return balancedness(placed.rank_loads(load), layout.dead_ranks)


def check_even(placed: ExpertMap, layout: ExpertLayout) -> None:
    """That no two replicas share a rank is checked by the map itself."""
    assert placed.is_complete
    assert len(placed.slots) == layout.num_ranks * layout.slots_per_rank
    for rank in range(layout.num_ranks):
        experts = placed.on_rank(rank)
        assert (experts == (EMPTY,) * len(experts)) == (rank in layout.dead_ranks)


@given(st.data())
def test_every_expert_is_placed_and_no_balance_is_lost(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    load = data.draw(loads_for(layout))
    initial = initial_map(layout.num_experts, layout.num_ranks, layout.num_redundant)
    placed = place(load, layout)
    check_even(placed, layout)
    assert EMPTY not in placed.slots
    assert balance_of(placed, load, layout) >= balance_of(initial, load, layout)
    later = data.draw(loads_for(layout))
    again = place(later, layout, placed)
    check_even(again, layout)
    for before in (initial, placed):
        assert balance_of(again, later, layout) >= balance_of(before, later, layout)


@given(st.data())
def test_nothing_moves_where_the_balance_is_perfect(data: st.DataObject) -> None:
    layout = data.draw(layouts(max_nodes=1))
    current = place(data.draw(loads_for(layout)), layout)
    counts = np.bincount(current.slots, minlength=layout.num_experts)
    assert place(counts.tolist(), layout, current) == current


@given(st.data())
def test_survivors_hold_every_expert(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    dead = data.draw(st.sets(st.integers(0, layout.num_ranks - 1), max_size=layout.num_ranks - 1))
    load = data.draw(loads_for(layout))
    current = place(load, layout)
    smaller = ExpertLayout(
        num_experts=layout.num_experts,
        num_ranks=layout.num_ranks,
        num_redundant=layout.num_redundant,
        dead_ranks=frozenset(dead),
    )
    if len(smaller.living_ranks) * layout.slots_per_rank < layout.num_experts:
        with pytest.raises(ConfigError, match="living ranks"):
            place(load, smaller, current)
        return
    for before in (current, current.without(dead), None):
        check_even(place(load, smaller, before), smaller)


@given(st.data())
def test_hierarchical_placement_keeps_groups_on_nodes(data: st.DataObject) -> None:
    layout = data.draw(hierarchical_layouts())
    assert layout.is_hierarchical
    load = np.array(data.draw(loads_for(layout)), float)
    placed = hierarchical_map(load, layout)
    check_even(placed, layout)
    assert is_local(placed, layout)


@given(st.data())
def test_renamed_ranks_move_no_more_and_weigh_the_same(data: st.DataObject) -> None:
    layout = data.draw(layouts())
    load = data.draw(loads_for(layout))
    current = place(data.draw(loads_for(layout)), layout)
    new = global_map(np.array(load, float), layout)
    aligned = align(new, current, [layout.living_ranks])
    before, after = new.rank_loads(load), aligned.rank_loads(load)
    assert np.allclose(np.sort(before), np.sort(after))
    assert sorted(aligned.slots) == sorted(new.slots)
    assert align(current, current, [layout.living_ranks]) == current


@given(st.data())
def test_replicas_are_as_small_as_can_be(data: st.DataObject) -> None:
    """Against the smallest limit under which the replicas needed still fit."""
    load = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=6))
    cap = data.draw(st.integers(1, 5))
    num_slots = data.draw(st.integers(len(load), len(load) * cap))
    counts = replicate(np.array(load, float), num_slots, cap)
    assert sum(counts) == num_slots
    assert all(1 <= count <= cap for count in counts)
    largest = max(x / count for x, count in zip(load, counts, strict=True))
    for limit in {x / count for x in load for count in range(1, cap + 1)}:
        if limit < largest:
            needed = [max(1, -(-x // limit)) if limit else (cap + 1 if x else 1) for x in load]
            assert sum(needed) > num_slots or max(needed) > cap


@given(st.data())
def test_swaps_never_make_the_heaviest_bin_heavier(data: st.DataObject) -> None:
    num_bins = data.draw(st.integers(1, 6))
    counts = data.draw(st.lists(st.integers(1, num_bins), min_size=1, max_size=12))
    counts += [1] * (-sum(counts) % num_bins)
    weights = st.lists(st.integers(0, 99), min_size=len(counts), max_size=len(counts))
    shares = np.array(data.draw(weights), float)
    bins = pack(shares, counts, num_bins)
    before = max(shares[items].sum() for items in bins)
    improve(bins, shares)
    assert max(shares[items].sum() for items in bins) <= before
    assert all(len(set(items)) == len(items) == len(bins[0]) for items in bins)
    items = [item for items in bins for item in items]
    assert np.bincount(items, minlength=len(counts)).tolist() == counts


def test_a_hot_expert_gets_the_redundant_slots() -> None:
    layout = ExpertLayout(num_experts=4, num_ranks=4, num_redundant=4)
    placed = place([90, 10, 10, 10], layout)
    assert len(placed.replicas()[0]) == 4
    assert balance_of(placed, [90, 10, 10, 10], layout) > 0.9


def test_a_global_placement_is_taken_where_groups_are_too_unequal() -> None:
    """Four groups on two nodes: two hot ones balance, one does not."""
    layout = ExpertLayout(num_experts=16, num_ranks=4, num_nodes=2, num_groups=4)
    even = [8] * 4 + [1] * 4 + [8] * 4 + [1] * 4
    assert is_local(place(even, layout), layout)
    uneven = [12] * 4 + [1] * 12
    assert not is_local(place(uneven, layout), layout)
    assert balance_of(place(uneven, layout), uneven, layout) == 1.0


def test_counts_that_do_not_fit_are_refused_with_numbers() -> None:
    assert slots_per_rank(256, 72, 32) == 4
    with pytest.raises(ConfigError, match="--num-redundant-experts 32"):
        slots_per_rank(256, 72, 30)
    with pytest.raises(ConfigError, match="10 slots"):
        slots_per_rank(8, 4, 32)
    assert initial_map(4, 3, 2).slots == (0, 1, 2, 3, 0, 1)
    assert initial_map(3, 2, 1).slots == (0, 1, 0, 2)


def test_masked_ranks_hold_nothing() -> None:
    current = initial_map(4, 4, 4)
    assert current.slots == (0, 1, 2, 3, 0, 1, 2, 3)
    masked = current.without({0})
    assert masked.slots == (EMPTY, EMPTY, 2, 3, 0, 1, 2, 3)
    assert masked.is_complete
    assert not masked.without({2}).is_complete
    table, counts = masked.replica_table()
    assert table.tolist() == [[4, 4], [5, 5], [2, 6], [3, 7]]
    assert counts.tolist() == [1, 1, 2, 2]
    assert masked.rank_loads([1, 2, 4, 6]).tolist() == [0, 5, 3, 5]
