import os
import subprocess
import sys

from benchmarks.quiet import (
    CpuTimes,
    parse_stat,
    process_cpu_s,
    read_times,
    resident_bytes,
    tree,
    wait_until_quiet,
)

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def test_first_line_of_the_machines_times() -> None:
    #      user nice system idle iowait irq softirq steal guest guest_nice
    text = "cpu  100 20 30 9000 500 4 6 70 11 12\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_stat(text) == (160 / TICKS_PER_S, 70 / TICKS_PER_S)


def test_what_others_took() -> None:
    before = CpuTimes(at_s=10.0, busy_s=100.0, stolen_s=5.0, own_s=50.0)
    later = CpuTimes(at_s=14.0, busy_s=106.0, stolen_s=5.5, own_s=54.5)
    assert before.others(later) == (6.0 + 0.5 - 4.5) / 4.0
    assert before.others(CpuTimes(at_s=14.0, busy_s=101.0, stolen_s=5.0, own_s=51.1)) == 0.0


def test_own_work_is_that_of_children_too() -> None:
    before = read_times()
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    assert child.pid in tree(os.getpid())
    assert process_cpu_s(child.pid) >= 0.2
    assert read_times().own_s - before.own_s >= 0.2
    assert resident_bytes(os.getpid()) > resident_bytes(child.pid) > 1 << 20
    child.communicate(b"\n")
    assert read_times().own_s - before.own_s >= 0.2  # also when it is over
    assert process_cpu_s(child.pid) == 0.0


class Machine:
    """Others take what a script says, in each half second."""

    def __init__(self, cores: list[float]) -> None:
        self.cores = cores
        self.at_s = self.busy_s = 0.0

    def read(self) -> CpuTimes:
        return CpuTimes(self.at_s, self.busy_s, 0.0, 0.0)

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds
        self.busy_s += seconds * self.cores.pop(0)


def test_quiet_is_several_windows_on_end() -> None:
    machine = Machine([1.0, 0.05, 0.9, 0.0, 0.09, 2.0])
    assert wait_until_quiet(0.1, 10.0, read=machine.read, sleep=machine.sleep)
    assert machine.cores == [2.0]


def test_a_machine_that_is_never_quiet() -> None:
    machine = Machine([0.5] * 100)
    assert not wait_until_quiet(0.1, 5.0, read=machine.read, sleep=machine.sleep)
    assert machine.at_s == 5.0
