"""Collectives over process groups of `torch.distributed`: gloo between CPUs, NCCL between GPUs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store  # where their types are declared

from leadline.engine.parallel.collectives import Collectives, SoloCollectives
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.parallel.layout import ParallelLayout


class Group(Protocol):
    """The backends' own interface, which needs no state of the process."""

    def rank(self) -> int:
        """Of this process."""
        ...

    def size(self) -> int:
        """Number of ranks."""
        ...

    def allreduce(self, tensors: list[Tensor]) -> Any:
        """In place."""
        ...

    def _allgather_base(self, output: Tensor, x: Tensor) -> Any: ...

    def _reduce_scatter_base(self, output: Tensor, x: Tensor) -> Any: ...

    def alltoall_base(self, output: Tensor, x: Tensor, receive: list[int], send: list[int]) -> Any:
        """Rows by rank."""
        ...


class GroupCollectives:
    """`Collectives` over a process group; every rank of it makes one."""

    def __init__(self, group: Group, *, ordered: bool) -> None:
        """Join a group.

        Args:
            group: made by `torch.distributed`.
            ordered: sum in rank order, whatever the shape, so that no bit depends on how many rows
                there are; else as the library sums, which moves fewer bytes.
        """
        self._group = group
        self._ordered = ordered
        self.rank = group.rank()
        self.size = group.size()

    def all_reduce(self, x: Tensor) -> Tensor:
        """See `Collectives.all_reduce`."""
        if x.numel() == 0:
            return x
        if self._ordered:
            return _sum(self._gather(x), x.dtype)
        x = x.contiguous()
        self._group.allreduce([x]).wait()
        return x

    def all_gather(self, x: Tensor, dim: int) -> Tensor:
        """See `Collectives.all_gather`."""
        return torch.cat(self._gather(x).unbind(0), dim)

    def reduce_scatter(self, x: Tensor) -> Tensor:
        """See `Collectives.reduce_scatter`."""
        num_rows = x.shape[0] // self.size
        if x.numel() == 0:
            return x[:num_rows]
        if self._ordered:
            counts = [num_rows] * self.size
            parts = self.all_to_all(x, counts, counts)
            return _sum(parts.unflatten(0, (self.size, num_rows)), x.dtype)
        own = x.new_empty(num_rows, *x.shape[1:])
        self._group._reduce_scatter_base(own, x.contiguous()).wait()
        return own

    def all_to_all(self, x: Tensor, send: Sequence[int], receive: Sequence[int]) -> Tensor:
        """See `Collectives.all_to_all`."""
        received = x.new_empty(sum(receive), *x.shape[1:])
        work = self._group.alltoall_base(
            _raw(received), _raw(x.contiguous()), list(receive), list(send)
        )
        work.wait()
        return received

    def _gather(self, x: Tensor) -> Tensor:
        """What every rank has, [size, ...]."""
        gathered = x.new_empty(self.size * x.shape[0], *x.shape[1:])
        if x.numel():
            self._group._allgather_base(_raw(gathered), _raw(x.contiguous())).wait()
        return gathered.view(self.size, *x.shape)


def make_context(
    layout: ParallelLayout,
    rank: int,
    store: Store,
    *,
    device: str,
    ordered: bool,
    interface: str = "lo",
    timeout_s: float = 3600.0,
) -> ParallelContext:
    """Join the groups of a rank; all ranks of the layout do so at the same time.

    Args:
        layout: sizes of the groups.
        rank: which of the layout's ranks this one is.
        store: where they find each other; for this context alone.
        device: `cpu` or `cuda`.
        ordered: see `GroupCollectives`.
        interface: the network interface that gloo listens on.
        timeout_s: a collective operation that takes longer fails.
    """

    def join(name: str, groups: list[list[int]]) -> Collectives:
        ranks = next(ranks for ranks in groups if rank in ranks)
        if len(ranks) == 1:
            return SoloCollectives()
        own = PrefixStore(f"{name}-{ranks[0]}", store)
        index = ranks.index(rank)
        timeout = timedelta(seconds=timeout_s)
        if device == "cuda":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            nccl = dist.ProcessGroupNCCL(own, index, len(ranks), options)
            return GroupCollectives(cast(Group, nccl), ordered=ordered)
        gloo_options: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        gloo_options._timeout = timeout
        gloo_options._devices = [dist.ProcessGroupGloo.create_device(interface=interface)]
        gloo = dist.ProcessGroupGloo(own, index, len(ranks), gloo_options)
        return GroupCollectives(cast(Group, gloo), ordered=ordered)

    return ParallelContext(
        tp=join("tp", layout.tp_groups()),
        dp=join("dp", layout.dp_groups()),
        ep=join("ep", [list(range(layout.num_ranks))]),
    )


def _sum(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """In rank order, in float32; whole numbers as they are."""
    total = parts[0].to(torch.float32) if parts.is_floating_point() else parts[0].clone()
    for i in range(1, len(parts)):
        total += parts[i]
    return total.to(dtype)


def _raw(x: Tensor) -> Tensor:
    """The bytes of FP8, which the libraries do not know."""
    return x.view(torch.uint8) if x.dtype == torch.float8_e4m3fn else x
