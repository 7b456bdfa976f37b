"""Which routed experts of a layer are on the device, where the others are computed by the host.

E experts, N of them resident.
"""

import torch
from torch import Tensor

_PERIOD = 16  # steps from one look at the load to the next
_DECAY = 0.5  # of the load, from look to look
_GAIN = 1.25  # how much more loaded an expert must be to take another's place


class ResidentExperts:
    """A place on the device for each of N experts; the most loaded come to have them.

    Attributes:
        expert_ids: the expert in each place.
        ids_N: the same, int64 on the device.
        slots_E: int64 on the device, where an expert's rows go: its place, or N + its id.
    """

    def __init__(self, num_experts: int, num_resident: int, device: torch.device) -> None:
        """The first N experts, until the load is known."""
        self.expert_ids = list(range(num_resident))
        self.ids_N = torch.tensor(self.expert_ids, dtype=torch.int64, device=device)
        self.slots_E = torch.arange(num_resident, num_resident + num_experts, device=device)
        self.slots_E[self.ids_N] = torch.arange(num_resident, device=device)
        self._load_E = torch.zeros(num_experts)
        self._num_steps = 0

    @property
    def num_resident(self) -> int:
        """N."""
        return len(self.expert_ids)

    def split(self, counts_E: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the N resident experts, and of all E with none for the resident."""
        others_E = counts_E.index_fill(0, self.ids_N.to(counts_E.device), 0)
        return counts_E[self.ids_N.to(counts_E.device)], others_E

    def observe(self, counts_E: Tensor) -> tuple[int, int] | None:
        """Takes a step's load into account, on the host.

        Returns:
            (place, expert) where an expert is better put there than the present one, else None.
        """
        self._load_E += counts_E
        self._num_steps += 1
        if not self.expert_ids or self._num_steps % _PERIOD:
            return None
        load_E = self._load_E
        resident_N = load_E[self.expert_ids]
        others_E = load_E.clone()
        others_E[self.expert_ids] = -1
        place, expert = int(resident_N.argmin()), int(others_E.argmax())
        is_better = float(others_E[expert]) > _GAIN * float(resident_N[place])
        self._load_E = load_E * _DECAY
        return (place, expert) if is_better else None

    def put(self, place: int, expert: int) -> None:
        """From now on the expert is in this place."""
        num, old = self.num_resident, self.expert_ids[place]
        self.expert_ids[place] = expert
        self.ids_N[place] = expert
        self.slots_E[old] = num + old
        self.slots_E[expert] = place
