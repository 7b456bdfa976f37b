"""A machine's own memory and cores, for experts that are computed there.

Rates of two sockets with eight channels of DDR5 each are the default; a core's are those of the
native kernels in float32.
"""

from dataclasses import dataclass

from leadline.engine.planning.gpus import GIB
from leadline.loader.model_config import ModelConfig

_BANDWIDTH_SHARE = 0.8  # of the memory's, that experts' weights stream with
_LINK_BANDWIDTH = 25e9  # of PCIe, in one direction
_ROUND_TRIP_S = 40e-6  # a layer: copies started, waited for, and the team of threads woken
_CORE_FLOPS = 70e9
SYSTEM_BYTES = 16 * GIB  # of the machine's memory, for everything but experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the host has.

    Attributes:
        memory_bytes: of the machine.
        bandwidth: of the memory, bytes a second.
        num_cores: that compute.
    """

    memory_bytes: int
    bandwidth: float = 400e9
    num_cores: int = 64

    def experts_s(
        self, model: ModelConfig, *, tokens: int, expert_bytes: int, num_resident: int
    ) -> float:
        """A layer's routed experts in a step, those on the GPU left out.

        Args:
            model: its config.
            tokens: of the step.
            expert_bytes: of one expert.
            num_resident: experts of the layer that the GPU has.
        """
        num, top_k = model.n_routed_experts, model.num_experts_per_tok
        share = 1 - num_resident / num
        chosen = num * share * (1 - (1 - top_k / num) ** tokens)
        rows = top_k * share * tokens
        flops = 6 * model.hidden_size * model.moe_intermediate_size * rows
        read_s = chosen * expert_bytes / (_BANDWIDTH_SHARE * self.bandwidth)
        moved = 2 * rows * model.hidden_size * 2
        compute_s = max(read_s, flops / (self.num_cores * _CORE_FLOPS))
        return _ROUND_TRIP_S + moved / _LINK_BANDWIDTH + compute_s
