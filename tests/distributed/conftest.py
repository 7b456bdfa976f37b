"""Network namespaces that stand for machines, joined by a bridge."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
PORT = 8000
_NETWORK = "10.77.0"
_ETC = Path("/etc/netns")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Machine:
    """One namespace.

    Attributes:
        address: of its interface `eth0`.
    """

    name: str
    address: str

    def popen(self, *command: str, log: Path) -> "subprocess.Popen[str]":
        with log.open("a") as stream:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env=os.environ | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            )

    def run(self, *command: str) -> str:
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        ).stdout


@dataclass
class Unit:
    """`leadline serve` on each machine."""

    machines: list[Machine]
    directory: Path
    flags: tuple[str, ...]
    nodes: dict[int, "subprocess.Popen[str]"] = field(default_factory=dict)

    def log(self, node: int) -> Path:
        return self.directory / f"node-{node}.log"

    def start(self, node: int) -> None:
        machine = self.machines[node]
        self.nodes[node] = machine.popen(
            *(sys.executable, "-P", "-m", "leadline.server.cli", "serve", "leadline-demo"),
            *("--served-model-name", "demo", "--port", str(PORT), "--num-threads", "1"),
            *("--nnodes", str(len(self.machines)), "--node-rank", str(node)),
            *("--head", self.machines[0].address, "--node-interface", "eth0"),
            *("--unit-key", str(self.directory / "key"), *self.flags),
            log=self.log(node),
        )

    def wait_until(self, pattern: str, node: int = 0, count: int = 1) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while len(re.findall(pattern, self.log(node).read_text())) < count:
            logs = [path.read_text() for path in sorted(self.directory.glob("*.log"))]
            told = f"{pattern!r} not said: {logs}"
            assert time.monotonic() < deadline_s, told
            assert self.nodes[node].poll() is None, told
            time.sleep(0.05)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "distributed" in config.option.markexpr:
        return
    out = [item for item in items if item.get_closest_marker("distributed")]
    items[:] = [item for item in items if not item.get_closest_marker("distributed")]
    config.hook.pytest_deselected(items=out)


@pytest.fixture
def machines() -> Iterator[Callable[[int], list[Machine]]]:
    """Makes so many machines; skipped where namespaces cannot be made."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make network namespaces with")
    prefix = f"ll{os.getpid()}"
    hub = f"{prefix}-hub"
    made: list[str] = []

    def make(count: int) -> list[Machine]:
        try:
            ip("netns", "add", hub)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made: {error.stderr.decode().strip()}")
        made.append(hub)
        ip("-n", hub, "link", "add", "br0", "type", "bridge")
        ip("-n", hub, "link", "set", "br0", "up")
        machines = []
        for node in range(count):
            name = f"{prefix}-{node}"
            ip("netns", "add", name)
            etc = _ETC / name  # what `ip netns exec` shows as /etc: names are looked up at once
            etc.mkdir(parents=True)
            (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
            hosts = [f"{_NETWORK}.{number + 1} node{number}" for number in range(count)]
            (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
            made.append(name)
            port = f"port{node}"
            ip(
                "-n",
                hub,
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                name,
            )
            ip("-n", hub, "link", "set", port, "master", "br0", "up")
            machine = Machine(name, f"{_NETWORK}.{node + 1}")
            ip("-n", name, "addr", "add", f"{machine.address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
            machines.append(machine)
        return machines

    yield make
    for name in made:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", name)
        shutil.rmtree(_ETC / name, ignore_errors=True)


@pytest.fixture
def unit_on(tmp_path: Path) -> Iterator[Callable[..., Unit]]:
    """Starts a unit on machines: `unit_on(machines, *flags)`."""
    units: list[Unit] = []

    def start(machines: list[Machine], *flags: str) -> Unit:
        (tmp_path / "key").write_bytes(os.urandom(32))
        unit = Unit(machines, tmp_path, flags)
        units.append(unit)
        for node in range(len(machines)):
            unit.start(node)
        return unit

    yield start
    for unit in units:
        for process in unit.nodes.values():
            if process.poll() is None:
                process.kill()
            process.wait(WAIT_S)
