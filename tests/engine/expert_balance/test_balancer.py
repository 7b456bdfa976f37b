"""A unit of ranks whose experts move while it serves, in one process: ranks take their turns."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.expert_balance.balancer import POLL_STEPS, ExpertBalancer
from leadline.engine.expert_balance.decision import decide
from leadline.engine.expert_balance.expert_map import ExpertMap, balancedness, initial_map
from leadline.engine.expert_balance.moves import Chunk, Transfer, rounds, transfers
from leadline.engine.expert_balance.placement import ExpertLayout, place

LAYOUT = ExpertLayout(num_experts=8, num_ranks=4, num_redundant=4, num_nodes=2, num_groups=2)
LAYERS = (3, 5)
EXPERT_BYTES = 10
ROUND_BYTES = 4
HOT = [900, 100, 100, 100, 100, 100, 100, 100]


def weights_of(layer: int, expert: int) -> bytes:
    return bytes([layer, expert] * (EXPERT_BYTES // 2))


class Everything:
    """All ranks' weights and loads; collectives are done by running the ranks in rounds."""

    def __init__(self, initial: ExpertMap) -> None:
        self.slots = {
            layer: [bytearray(weights_of(layer, e)) for e in initial.slots] for layer in LAYERS
        }
        self.load = {layer: [0] * LAYOUT.num_experts for layer in LAYERS}
        self.damage: Callable[[int], bool] = lambda layer: False
        self.largest_round = 0


class FakeRank:
    """A rank; the others' part of a collective is computed from the shared state."""

    def __init__(self, everything: Everything, rank: int, ranks: list["FakeRank"]) -> None:
        self.all, self.rank, self.ranks = everything, rank, ranks
        self.is_first = rank == 0
        self.sums: list[list[int]] = []
        self.layer = 0
        self.moves: Sequence[Transfer] = ()
        self.staged: dict[int, bytearray] = {}

    def load(self) -> dict[int, list[int]]:
        """Each rank has a quarter of the load."""
        return {layer: [n // 4 for n in counts] for layer, counts in self.all.load.items()}

    def sum(self, values: Sequence[int]) -> list[int]:
        raise NotImplementedError

    def expert_bytes(self, layer: int) -> int:
        return EXPERT_BYTES

    def begin_layer(self, layer: int, moves: Sequence[Transfer]) -> None:
        self.layer, self.moves = layer, moves
        width = LAYOUT.slots_per_rank
        mine = [i for i, move in enumerate(moves) if move.target // width == self.rank]
        self.staged = {i: bytearray(EXPERT_BYTES) for i in mine}

    def exchange(self, chunks: Sequence[Chunk]) -> None:
        received = 0
        for chunk in chunks:
            if chunk.index in self.staged:
                source = self.all.slots[self.layer][self.moves[chunk.index].source]
                part = source[chunk.begin : chunk.end]
                self.staged[chunk.index][chunk.begin : chunk.end] = part
                received += len(part)
        self.all.largest_round = max(self.all.largest_round, received)
        if self.staged and self.all.damage(self.layer):
            next(iter(self.staged.values()))[0] ^= 1

    def num_damaged(self) -> int:
        return sum(
            staged != weights_of(self.layer, self.moves[i].expert)
            for rank in self.ranks
            for i, staged in rank.staged.items()
        )

    def end_layer(self, new: ExpertMap | None) -> None:
        self.pending = new


def at_once(function: Callable[..., Any], *args: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(function(*args))
    return future


class LockStep:
    """Ranks whose sums are formed before any of them goes on: values are asked for twice."""

    def __init__(self, submit: Callable[..., Future[Any]] = at_once, window: int = 2) -> None:
        self.initial = initial_map(8, 4, 4)
        self.all = Everything(self.initial)
        self.ranks: list[FakeRank] = []
        self.ranks += [FakeRank(self.all, rank, self.ranks) for rank in range(4)]
        self.balancers = [
            ExpertBalancer(
                rank,
                LAYOUT,
                dict.fromkeys(LAYERS, self.initial),
                window_steps=window,
                round_bytes=ROUND_BYTES,
                submit=submit,
            )
            for rank in self.ranks
        ]

    def step(self, load: Sequence[int]) -> None:
        """A step of the model, and a turn of every rank."""
        for counts in self.all.load.values():
            counts[:] = [a + 4 * b for a, b in zip(counts, load, strict=True)]
        self.turn()
        self.check()

    def turn(self) -> None:
        import threading

        barrier = threading.Barrier(len(self.ranks))
        parts: dict[int, list[int]] = {}
        errors: list[BaseException] = []

        def summed(rank: FakeRank, values: Sequence[int]) -> list[int]:
            parts[rank.rank] = list(values)
            barrier.wait(20)
            total = [sum(column) for column in zip(*parts.values(), strict=True)]
            barrier.wait(20)
            return total

        def run(index: int) -> None:
            rank = self.ranks[index]
            rank.sum = lambda values: summed(rank, values)  # type: ignore[method-assign]
            rank.pending = ()
            try:
                self.balancers[index].between_steps()
                barrier.wait(20)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
                barrier.abort()

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(self.ranks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        for rank in self.ranks:
            if rank.pending != ():
                if rank.pending is not None:
                    for i, staged in rank.staged.items():
                        self.all.slots[rank.layer][rank.moves[i].target] = staged
                rank.staged = {}

    def check(self) -> None:
        """Every slot holds the weights that every rank's map says."""
        for layer in LAYERS:
            maps = [balancer.maps[layer] for balancer in self.balancers]
            assert all(one == maps[0] for one in maps)
            expected = [weights_of(layer, expert) for expert in maps[0].slots]
            assert [bytes(slot) for slot in self.all.slots[layer]] == expected


def test_experts_move_until_balanced_and_then_stay() -> None:
    unit = LockStep()
    for _ in range(120):
        unit.step(HOT)
    counts = unit.balancers[0].counts
    assert counts == unit.balancers[3].counts
    assert counts.num_switched_layers == len(LAYERS)
    for placed in unit.balancers[0].maps.values():
        assert balancedness(placed.rank_loads(HOT)) > balancedness(unit.initial.rank_loads(HOT))
        assert balancedness(placed.rank_loads(HOT)) == pytest.approx(counts.predicted, abs=1e-6)
    assert counts.balancedness == pytest.approx(counts.predicted)  # achieved as predicted
    assert counts.num_skipped >= 1
    assert counts.num_windows == counts.num_skipped + 1
    assert 0 < unit.all.largest_round <= ROUND_BYTES
    assert counts.num_moved_bytes % EXPERT_BYTES == 0


def test_nothing_moves_in_a_balanced_unit() -> None:
    unit = LockStep()
    for _ in range(60):
        unit.step([100, 100, 100, 100, 50, 50, 50, 50])
    counts = unit.balancers[0].counts
    assert counts.num_switched_layers == counts.num_moved_bytes == 0
    assert counts.num_windows == counts.num_skipped > 0


def test_a_layer_that_comes_damaged_stays_as_it_is() -> None:
    unit = LockStep()
    unit.all.damage = lambda layer: layer == 5
    for _ in range(60):
        unit.step(HOT)
    counts = unit.balancers[0].counts
    assert counts.num_switched_layers == 1
    assert counts.num_refused_layers >= 1
    assert unit.balancers[0].maps[5] == unit.initial
    assert unit.balancers[0].maps[3] != unit.initial


def test_steps_go_on_while_the_first_rank_decides() -> None:
    futures: list[Future[Any]] = []

    def never(*args: Any) -> Future[Any]:
        futures.append(Future())
        return futures[-1]

    unit = LockStep(submit=never)
    for _ in range(5 * POLL_STEPS):
        unit.step(HOT)
    assert len(futures) == 1  # of the first rank alone
    assert unit.balancers[0].counts.balancedness == 0
    loads = {layer: [4 * n for n in HOT] for layer in LAYERS}
    futures[0].set_result(decide(loads, unit.balancers[0].maps, LAYOUT))
    for _ in range(10 * POLL_STEPS):
        unit.step(HOT)
    assert unit.balancers[0].counts.num_switched_layers == len(LAYERS)


def test_a_thin_window_decides_nothing() -> None:
    current = initial_map(8, 4, 4)
    few = decide({3: [9, 1, 1, 1, 1, 1, 1, 1]}, {3: current}, LAYOUT)
    assert few.maps == {}
    assert few.balancedness == few.predicted < 1
    many = decide({3: HOT}, {3: current}, LAYOUT)
    assert many.predicted > many.balancedness
    assert set(many.maps) == {3}


loads = st.lists(st.integers(0, 1000), min_size=8, max_size=8)


@given(loads, loads, st.integers(1, 25))
@settings(max_examples=50)
def test_moves_bring_every_slot_its_expert(one: list[int], two: list[int], size: int) -> None:
    old = place(one, LAYOUT)
    new = place(two, LAYOUT, old)
    moves = transfers(old, new, 2)
    changed = {s for s, (a, b) in enumerate(zip(old.slots, new.slots, strict=True)) if a != b}
    assert {move.target for move in moves} == changed
    assert all(old.slots[move.source] == move.expert for move in moves)
    assert all(new.slots[move.target] == move.expert for move in moves)
    done = [0] * len(moves)
    for chunks in rounds(moves, LAYOUT.slots_per_rank, EXPERT_BYTES, size):
        assert chunks
        sent, received = [0] * 4, [0] * 4
        for chunk in chunks:
            assert chunk.begin == done[chunk.index] < chunk.end
            done[chunk.index] = chunk.end
            sent[old.rank_of(moves[chunk.index].source)] += chunk.end - chunk.begin
            received[new.rank_of(moves[chunk.index].target)] += chunk.end - chunk.begin
        assert max(sent + received) <= size
    assert done == [EXPERT_BYTES] * len(moves)


def test_weights_come_from_near() -> None:
    """Expert 0 is on ranks 0 and 2; rank 3 is on the node of rank 2."""
    old = ExpertMap(4, 4, (0, 1, 2, 3, 0, 1, 2, 3))
    new = ExpertMap(4, 4, (0, 1, 2, 3, 0, 1, 0, 3))
    assert transfers(old, new, 2) == [Transfer(0, 4, 6)]
    swapped = ExpertMap(4, 4, (1, 0, 2, 3, 0, 1, 2, 3))
    assert transfers(old, swapped, 2) == [Transfer(1, 1, 0), Transfer(0, 0, 1)]
