"""What a running server offers to the machine around it: one port, and private directories."""

import contextlib
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from benchmarks.processes import tree_of

if not Path("/proc/net/tcp").exists():
    pytest.skip("reads /proc", allow_module_level=True)

LISTENING, UNCONNECTED = "0A", "07"


def inodes_of(pids: list[int]) -> set[str]:
    """The sockets that the processes hold."""
    found = set()
    for fd in (fd for pid in pids for fd in Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):  # it has been closed meanwhile
            link = str(fd.readlink())
            if link.startswith("socket:["):
                found.add(link[len("socket:[") : -1])
    return found


def rows(name: str, pid: int) -> list[list[str]]:
    path = Path(f"/proc/{pid}/net/{name}")
    return [line.split() for line in path.read_text().splitlines()[1:]] if path.exists() else []


def test_nothing_listens_but_the_api(target: Any) -> None:
    pids = tree_of(target.process.pid)
    assert len(pids) >= 4, "the server, its engine, and what checks grammars and templates"
    inodes = inodes_of(pids)
    listening = []
    for name in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        for row in rows(name, target.process.pid):
            local, state, inode = row[1], row[3], row[9]
            if inode in inodes and (state == LISTENING or not name.startswith("tcp")):
                listening.append((name, int(local.rpartition(":")[2], 16)))
    assert listening == [("tcp", target.address[1])]


def test_no_connection_goes_out(target: Any) -> None:
    """Whatever is connected is a client of the API."""
    inodes = inodes_of(tree_of(target.process.pid))
    for name in ("tcp", "tcp6"):
        for row in rows(name, target.process.pid):
            if row[9] in inodes:
                assert int(row[1].rpartition(":")[2], 16) == target.address[1]


def test_sockets_between_processes_lie_in_private_directories(target: Any) -> None:
    inodes = inodes_of(tree_of(target.process.pid))
    paths = [
        Path(row[7])
        for row in rows("unix", target.process.pid)
        if row[6] in inodes and len(row) > 7
    ]
    assert paths
    for path in paths:
        assert path.is_absolute(), "an abstract socket is open to everybody on the machine"
        assert path.is_relative_to(target.directory)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_temporary_directories_are_private(target: Any) -> None:
    entries = list(target.directory.iterdir())
    assert entries
    for entry in entries:
        assert entry.stat().st_mode & 0o077 == 0, entry


def test_the_api_is_on_the_local_interface_by_default(target: Any) -> None:
    assert target.address[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", target.address[1]), 5)
