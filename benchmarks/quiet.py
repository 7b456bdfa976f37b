"""How much of the processors others take, by /proc: what makes a measurement worthless."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ, _STEAL = 0, 1, 2, 5, 6, 7


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Processor seconds so far, at a time.

    Attributes:
        busy_s: of the whole machine.
        stolen_s: that the machine's host gave to others.
        own_s: of this process and all below it.
    """

    at_s: float
    busy_s: float
    stolen_s: float
    own_s: float

    def others(self, later: "CpuTimes") -> float:
        """Cores that others took between this and a later reading, on the mean."""
        busy_s = later.busy_s - self.busy_s + later.stolen_s - self.stolen_s
        taken_s = busy_s - (later.own_s - self.own_s)
        return max(taken_s / max(later.at_s - self.at_s, 1e-9), 0.0)


def parse_stat(text: str) -> tuple[float, float]:
    """Busy and stolen seconds by the first line of /proc/stat; guests are part of user time."""
    ticks = [int(field) for field in text.split("\n", 1)[0].split()[1:]]
    busy = sum(ticks[i] for i in (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ))
    return busy / _TICKS_PER_S, ticks[_STEAL] / _TICKS_PER_S


def read_times(root: int | None = None) -> CpuTimes:
    """Now; `root` is the process that counts as one's own with all below it (default: this)."""
    own_s = sum(map(process_cpu_s, tree(root or os.getpid())))
    busy_s, stolen_s = parse_stat((_PROC / "stat").read_text())
    return CpuTimes(time.monotonic(), busy_s, stolen_s, own_s)


def tree(root: int) -> Iterator[int]:
    """A process and all that it has started, as long as their parents live."""
    yield root
    for file in (_PROC / str(root) / "task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from tree(int(child))


def process_cpu_s(process_id: int) -> float:
    """Of a process and the children that it has waited for; 0 if it has ended."""
    try:
        fields = (_PROC / str(process_id) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def resident_bytes(root: int) -> int:
    """Memory of a process and all below it; what they share counts in each."""
    total = 0
    for process_id in tree(root):
        try:
            total += int((_PROC / str(process_id) / "statm").read_text().split()[1])
        except OSError:
            continue
    return total * _PAGE_BYTES


def wait_until_quiet(
    max_cores: float,
    timeout_s: float,
    *,
    num_windows: int = 2,
    window_s: float = 0.5,
    read: Callable[[], CpuTimes] = read_times,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until others took at most `max_cores` in so many windows on end.

    Returns:
        False if `timeout_s` went by before.
    """
    before = read()
    deadline_s = before.at_s + timeout_s
    num_quiet = 0
    while num_quiet < num_windows:
        if before.at_s >= deadline_s:
            return False
        sleep(window_s)
        after = read()
        num_quiet = num_quiet + 1 if before.others(after) <= max_cores else 0
        before = after
    return True
