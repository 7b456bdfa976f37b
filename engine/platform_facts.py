"""What the machine has to offer, as plain data."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformFacts:
    """A machine or a part of one.

    Attributes:
        device: `cpu` or `cuda`.
        num_cores: CPU cores that this process may use.
        available_bytes: memory of the device that is not in use.
    """

    device: str
    num_cores: int
    available_bytes: int

    def share(self, num_ranks: int) -> "PlatformFacts":
        """What one of so many equal ranks on the machine's CPU has of it."""
        if num_ranks == 1 or self.device != "cpu":  # each has a GPU of its own
            return self
        cores, memory = max(1, self.num_cores // num_ranks), self.available_bytes // num_ranks
        return replace(self, num_cores=cores, available_bytes=memory)


def cpu_facts() -> PlatformFacts:
    """The CPU and memory that this process may use, limits of its container included."""
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    return PlatformFacts(
        device="cpu", num_cores=num_cores, available_bytes=min(_memory_limits(), default=0)
    )


def _memory_limits() -> Iterator[int]:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        yield int(fields["MemAvailable"].split()[0]) * 1024
    else:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cgroup = Path("/sys/fs/cgroup")
    maximum, current = cgroup / "memory.max", cgroup / "memory.current"
    if maximum.exists() and current.exists():
        limit = maximum.read_text().strip()
        if limit != "max":
            yield max(0, int(limit) - int(current.read_text()))
