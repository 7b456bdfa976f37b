"""Routed experts in host memory, computed there by the CPU's kernels beside what the device does.

DeepSeek-V3's routed experts are 97 % of its weights and read by few tokens each: they stay in the
host's memory, all but N of each layer, while attention and the shared expert are the device's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from leadline.engine.errors import ConfigError
from leadline.engine.model.dispatch import Dispatched, DispatchHandle, TokenDispatcher
from leadline.engine.model.experts import Experts, Pending
from leadline.engine.model.resident_experts import ResidentExperts
from leadline.engine.model.weights import storage_bytes
from leadline.kernels.api import KernelSet
from leadline.kernels.native import library
from leadline.kernels.parameters import MoEWeights, Weight
from leadline.kernels.select import Platform, reads_fp8, select_kernels
from leadline.kernels.types import QuantTensor

if TYPE_CHECKING:
    from leadline.engine.config import ResolvedConfig


def host_expert_layers(
    config: "ResolvedConfig", kernels: KernelSet, num_experts: int
) -> "HostExpertLayers | None":
    """The layers' experts in host memory; None if the config has them with everything else.

    Raises:
        ConfigError: the CPU has no fast kernels here.
    """
    if config.expert_device != "cpu":
        return None
    host_kernels, choices = select_kernels(Platform("cpu", config.batch_invariant))
    if not reads_fp8(choices):
        raise ConfigError(
            f"expert_device cpu takes the native kernels, which are not here: {library.MISSING}"
        )
    return HostExpertLayers(
        kernels,
        host_kernels,
        num_experts=num_experts,
        num_resident=config.expert_gpu_count,
        device=torch.device(config.device),
        adapts=not config.batch_invariant,
    )


class HostExpertLayers:
    """Makes dispatchers and experts of all layers."""

    def __init__(
        self,
        kernels: KernelSet,
        host_kernels: KernelSet,
        *,
        num_experts: int,
        num_resident: int,
        device: torch.device,
        adapts: bool,
    ) -> None:
        """For a model.

        Args:
            kernels: of the device.
            host_kernels: of the CPU.
            num_experts: of a layer.
            num_resident: of a layer, on the device; the most loaded if `adapts`, else the first.
            device: of everything else.
            adapts: whether an expert may move; its bits may change where the kernels differ.
        """
        self._kernels = kernels
        self._host_kernels = host_kernels
        self._num_experts = num_experts
        self._num_resident = num_resident
        self._device = device
        self._adapts = adapts
        self._residents: dict[int, ResidentExperts] = {}

    def make_dispatcher(self, layer: int) -> TokenDispatcher:
        """Of one layer."""
        return HostedDispatcher(self._kernels, self._residents_of(layer))

    def make_experts(self, layer: int, weights: MoEWeights) -> Experts:
        """Of one layer; the weights are on the host."""
        residents = self._residents_of(layer)
        return HostExperts(
            weights, residents, self._kernels, self._host_kernels, adapts=self._adapts
        )

    def _residents_of(self, layer: int) -> ResidentExperts:
        if layer not in self._residents:
            self._residents[layer] = ResidentExperts(
                self._num_experts, self._num_resident, self._device
            )
        return self._residents[layer]


class HostedDispatcher:
    """Rows of the resident experts first, by place; then those of the others, by expert."""

    def __init__(self, kernels: KernelSet, residents: ResidentExperts) -> None:
        self._kernels = kernels
        self._residents = residents
        self.expert_ids = range(len(residents.slots_E))

    def dispatch(self, x_TD: Tensor, ids_TK: Tensor, weights_TK: Tensor) -> Dispatched:
        """See `TokenDispatcher.dispatch`; `counts` are those of the experts in order."""
        residents, num = self._residents, self._residents.num_resident
        slots_TK = residents.slots_E[ids_TK]
        x_RD, permutation = self._kernels.permute(x_TD, slots_TK, num + len(self.expert_ids))
        counts_E = permutation.counts[num:].clone()
        ids_N = residents.ids_N.to(counts_E.device)
        counts_E.index_add_(0, ids_N, permutation.counts[:num])
        return Dispatched(x_RD, counts_E, DispatchHandle(permutation, weights_TK))

    def combine(self, y_RD: Tensor, handle: DispatchHandle) -> Tensor:
        """See `TokenDispatcher.combine`."""
        return self._kernels.unpermute(y_RD, handle.permutation, handle.weights_TK)


@dataclass(slots=True)
class _OnHost:
    """Rows and counts on their way to the host."""

    x_RD: Tensor
    counts_E: Tensor
    arrival: torch.cuda.Event | None

    def wait(self) -> tuple[Tensor, Tensor]:
        """Both, there."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.x_RD, self.counts_E


class HostExperts:
    """Experts of one layer: the resident ones by the device, the others by the host meanwhile."""

    def __init__(
        self,
        weights: MoEWeights,
        residents: ResidentExperts,
        kernels: KernelSet,
        host_kernels: KernelSet,
        *,
        adapts: bool,
    ) -> None:
        self._weights = weights
        self._residents = residents
        self._kernels = kernels
        self._host_kernels = host_kernels
        self._adapts = adapts
        ids, device = residents.expert_ids, residents.ids_N.device
        self._gate_up_N2FD = _take(weights.gate_up_E2FD, ids, device)
        self._down_NDF = _take(weights.down_EDF, ids, device)

    @property
    def num_bytes(self) -> int:
        """See `Experts.num_bytes`: the resident experts' copies."""
        return storage_bytes([self._gate_up_N2FD, self._down_NDF])

    def begin(self, x_RD: Tensor, counts: Tensor) -> Pending:
        """See `Experts.begin`; what the device is given next runs while the host computes."""
        on_host = _send(x_RD, counts)
        return lambda: self._finish(x_RD, on_host)

    def _finish(self, x_RD: Tensor, on_host: _OnHost) -> Tensor:
        host_x_RD, counts_E = on_host.wait()
        residents, weights = self._residents, self._weights
        counts_N, others_E = residents.split(counts_E)
        num_here = int(counts_N.sum())
        parts = []
        if num_here:
            parts.append(
                self._kernels.grouped_mlp(
                    x_RD[:num_here], counts_N, self._gate_up_N2FD, self._down_NDF
                )
            )
        y_RD = self._host_kernels.grouped_mlp(
            host_x_RD[num_here:], others_E, weights.gate_up_E2FD, weights.down_EDF
        )
        parts.append(y_RD.to(x_RD.device, non_blocking=True))
        if self._adapts:
            self._adapt(counts_E)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _adapt(self, counts_E: Tensor) -> None:
        """Give an expert a place on the device that is loaded more than the one there."""
        found = self._residents.observe(counts_E)
        if found is None:
            return
        place, expert = found
        _put(self._gate_up_N2FD, place, self._weights.gate_up_E2FD, expert)
        _put(self._down_NDF, place, self._weights.down_EDF, expert)
        self._residents.put(place, expert)


def _send(x_RD: Tensor, counts_E: Tensor) -> _OnHost:
    """Starts the way of rows to the host; what is there already stays."""
    if x_RD.device.type == "cpu":
        return _OnHost(x_RD, counts_E.cpu(), None)
    host_x_RD = torch.empty(x_RD.shape, dtype=x_RD.dtype, pin_memory=True)
    host_x_RD.copy_(x_RD, non_blocking=True)
    host_counts_E = torch.empty(counts_E.shape, dtype=counts_E.dtype, pin_memory=True)
    host_counts_E.copy_(counts_E, non_blocking=True)
    arrival = torch.cuda.Event()
    arrival.record()
    return _OnHost(host_x_RD, host_counts_E, arrival)


def _take(weight: Weight, ids: list[int], device: torch.device) -> Weight:
    """Copies of some experts' weights on a device."""
    if isinstance(weight, QuantTensor):
        data = weight.data.view(torch.uint8)[ids].to(device).view(torch.float8_e4m3fn)
        scale = weight.scale[ids].to(device)
        return QuantTensor(data, scale, weight.row_offset, weight.col_offset)
    return weight[ids].to(device)


def _put(target: Weight, place: int, source: Weight, expert: int) -> None:
    """Copies one expert's weights."""
    if isinstance(target, QuantTensor):
        assert isinstance(source, QuantTensor), "copies are of the same kind"
        target.data[place].copy_(source.data[expert])
        target.scale[place].copy_(source.scale[expert])
    else:
        assert isinstance(source, Tensor), "copies are of the same kind"
        target[place].copy_(source[expert])
