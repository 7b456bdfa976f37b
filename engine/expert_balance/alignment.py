"""Gives a new placement's ranks the numbers with which the fewest experts move."""

from collections.abc import Sequence

import numpy as np

from leadline.engine.expert_balance.expert_map import EMPTY, ExpertMap

Experts = tuple[int, ...]


def align(new: ExpertMap, current: ExpertMap, nodes: Sequence[Sequence[int]]) -> ExpertMap:
    """The new map with nodes, ranks within a node and slots within a rank renamed.

    The balance stays as it is. Those that share most with a place go there first.

    Args:
        new: to be renamed.
        current: where experts are now.
        nodes: ranks of each node, as many in each; nodes are taken as alike, and so are the ranks
            of a node. Ranks that are on none stay what they are.
    """
    own = [[new.on_rank(rank) for rank in node] for node in nodes]
    there = [[current.on_rank(rank) for rank in node] for node in nodes]
    placed = [new.on_rank(rank) for rank in range(new.num_ranks)]
    for source, target in enumerate(_match([_join(n) for n in own], [_join(n) for n in there])):
        for i, j in enumerate(_match(own[source], there[target])):
            placed[nodes[target][j]] = _keep_slots(own[source][i], there[target][j])
    return ExpertMap(new.num_experts, new.num_ranks, _join(placed))


def _join(ranks: Sequence[Experts]) -> Experts:
    return tuple(expert for experts in ranks for expert in experts)


def _match(sources: Sequence[Experts], targets: Sequence[Experts]) -> list[int]:
    """A target for each source; the pairs that share most experts are matched first."""
    held = [set(target) - {EMPTY} for target in targets]
    shared = np.array([[len(other.intersection(source)) for other in held] for source in sources])
    matched = [-1] * len(sources)
    is_taken = [False] * len(targets)
    for pair in np.argsort(-shared, axis=None, kind="stable").tolist():
        source, target = divmod(pair, len(targets))
        if matched[source] < 0 and not is_taken[target]:
            matched[source], is_taken[target] = target, True
    return matched


def _keep_slots(experts: Experts, there: Experts) -> Experts:
    """The experts in such an order that those which are there already keep their slots."""
    arriving = iter([expert for expert in experts if expert == EMPTY or expert not in there])
    return tuple(
        expert if expert in experts and expert != EMPTY else next(arriving) for expert in there
    )
