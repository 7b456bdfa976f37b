"""What has to travel for a layer to change its map, and in which order."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from leadline.engine.expert_balance.expert_map import EMPTY, ExpertMap


@dataclass(frozen=True, slots=True)
class Transfer:
    """The weights of one expert, from a slot to another one's place.

    Attributes:
        source, target: physical slots of the layer.
    """

    expert: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a transfer.

    Attributes:
        index: of the transfer.
        begin, end: bytes of the expert's weights.
    """

    index: int
    begin: int
    end: int


def transfers(old: ExpertMap, new: ExpertMap, ranks_per_node: int | None = None) -> list[Transfer]:
    """One for each slot that gets another expert, in the order of these slots.

    It comes from the same rank if the expert is there, else from the same node, and among equals
    from the rank that sends least.

    Args:
        old: must hold every expert that moves.
        new: a map of as many slots.
        ranks_per_node: None for a single node.
    """
    per_node = ranks_per_node or old.num_ranks
    replicas, num_sent = old.replicas(), Counter[int]()
    result = []
    for target, expert in enumerate(new.slots):
        if expert in (EMPTY, old.slots[target]):
            continue
        there = new.rank_of(target)

        def distance(slot: int, there: int = there) -> tuple[bool, bool, int, int]:
            rank = old.rank_of(slot)
            is_far = rank // per_node != there // per_node
            return rank != there, is_far, num_sent[rank], slot

        source = min(replicas[expert], key=distance)
        num_sent[old.rank_of(source)] += old.rank_of(source) != there
        result.append(Transfer(expert, source, target))
    return result


def rounds(
    moves: list[Transfer], slots_per_rank: int, expert_bytes: int, round_bytes: int
) -> Iterator[list[Chunk]]:
    """The chunks of each step: no rank sends or receives more than `round_bytes` in one.

    Args:
        moves: of a layer.
        slots_per_rank: of the layer's map.
        expert_bytes: weights of an expert.
        round_bytes: at least 1.
    """
    done = [0] * len(moves)
    left = list(range(len(moves)))
    while left:
        sent, received = Counter[int](), Counter[int]()
        chunks = []
        for index in left:
            source = moves[index].source // slots_per_rank
            target = moves[index].target // slots_per_rank
            room = round_bytes - max(sent[source], received[target])
            size = min(room, expert_bytes - done[index])
            if size <= 0:
                continue
            chunks.append(Chunk(index, done[index], done[index] + size))
            done[index] += size
            sent[source] += size
            received[target] += size
        left = [index for index in left if done[index] < expert_bytes]
        yield chunks
