"""Replicas of experts: which one a token goes to."""

import torch

from leadline.engine.expert_balance.expert_map import ExpertMap, initial_map
from leadline.engine.parallel.replicas import ReplicaPlacement


def routed(num_tokens: int, num_experts: int, top_k: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(num_tokens, num_experts, generator=generator)
    return scores.topk(top_k).indices


def test_every_choice_is_a_replica_of_its_expert() -> None:
    current = initial_map(16, 4, 8)
    ids_TK = routed(500, 16, 4)
    slots_TK = ReplicaPlacement(current).choose(ids_TK)
    assert torch.equal(torch.tensor(current.slots)[slots_TK], ids_TK)


def test_replicas_share_their_expert_evenly() -> None:
    current = initial_map(64, 16, 64)
    slots = ReplicaPlacement(current).choose(routed(20_000, 64, 8)).flatten().bincount()
    for replicas in current.replicas():
        shares = slots[replicas] / slots[replicas].sum()
        assert (shares - 1 / len(replicas)).abs().max() < 0.03


def test_a_token_goes_the_same_way_in_every_batch() -> None:
    placement = ReplicaPlacement(initial_map(16, 4, 8))
    ids_TK = routed(100, 16, 4)
    whole = placement.choose(ids_TK)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    assert torch.equal(placement.choose(ids_TK[order]), whole[order])
    alone = torch.cat([placement.choose(row[None]) for row in ids_TK])
    assert torch.equal(alone, whole)
    assert placement.choose(ids_TK[:0]).shape == (0, 4)


def test_a_new_map_is_taken_in_place() -> None:
    placement = ReplicaPlacement(initial_map(4, 2, 2))
    ids_TK = torch.tensor([[0, 3]])
    placement.replace(ExpertMap(4, 2, (3, 1, 2, 3, 0, 2)))
    assert placement.choose(ids_TK)[0, 0] == 4
    assert placement.choose(ids_TK)[0, 1] in (0, 3)
    assert placement.expert_ids(1) == [3, 0, 2]


def test_masked_ranks_get_nothing() -> None:
    placement = ReplicaPlacement(initial_map(4, 4, 4).without({0}))
    slots = placement.choose(routed(50, 4, 2))
    assert slots.min() >= placement.slots_per_rank
    assert placement.expert_ids(0) == []
