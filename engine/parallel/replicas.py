"""Experts in slots as an `ExpertMap` says, with several replicas of some."""

from collections.abc import Sequence

import torch
from torch import Tensor

from leadline.engine.expert_balance.expert_map import EMPTY, ExpertMap

_FACTOR = 0x9E3779B1  # 2**32 over the golden ratio, odd: neighbours land far apart
_MASK = 0xFFFFFFFF


class ReplicaPlacement:
    """Where the experts of a layer are, and which replica a token goes to.

    A token's replicas follow from the experts that it has chosen and from nothing else, so that
    they are the same in every batch and at every place in it. The choice is spread evenly.

    Attributes:
        slots_per_rank: as many on every rank; some may be empty.
        current: the map.
    """

    def __init__(self, current: ExpertMap) -> None:
        """`current`: must hold every expert."""
        self.slots_per_rank = current.slots_per_rank
        self.current = current
        # As wide as it can become: the storage stays where it is.
        self._table_ER = torch.zeros(current.num_experts, current.num_ranks, dtype=torch.int64)
        self._counts_E = torch.zeros(current.num_experts, dtype=torch.int64)
        self.replace(current)

    def replace(self, new: ExpertMap) -> None:
        """Take a map of the same size; tables are rewritten in place."""
        assert len(new.slots) == len(self.current.slots), "another number of slots"
        table, counts = new.replica_table()
        self.current = new
        self._table_ER[:, : table.shape[1]] = torch.from_numpy(table)
        self._counts_E.copy_(torch.from_numpy(counts))

    def expert_ids(self, rank: int) -> Sequence[int]:
        """The experts in the slots of a rank, in the order of its slots, without empty ones."""
        return [expert for expert in self.current.on_rank(rank) if expert != EMPTY]

    def choose(self, ids_TK: Tensor) -> Tensor:
        """A slot for each choice of an expert, int64 [T, K]."""
        if self._counts_E.device != ids_TK.device:  # the first time only
            self._table_ER = self._table_ER.to(ids_TK.device)
            self._counts_E = self._counts_E.to(ids_TK.device)
        ids_TK = ids_TK.to(torch.int64)
        key_T1 = ((ids_TK + 1) * _FACTOR & _MASK).sum(-1, keepdim=True)
        mixed_TK = (key_T1 + ids_TK) * _FACTOR & _MASK
        replica_TK = (mixed_TK >> 12) % self._counts_E[ids_TK]
        return self._table_ER[ids_TK, replica_TK]
