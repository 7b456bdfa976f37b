"""Processes of this machine, as Linux lists them in `/proc`."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    """The processes that a process has started, from any of its threads; none if it is gone."""
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, file.read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # its thread has ended
            continue
    return children


def tree_of(pid: int) -> list[int]:
    """A process and all below it."""
    return [pid, *(found for child in children_of(pid) for found in tree_of(child))]


def command_of(pid: int) -> str:
    """Its command line; empty of a process that is gone, or that its parent has yet to bury."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""
