"""The rank processes of one node, as children of the process that starts them."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from leadline.engine.unit.messages import RankLaunch


class RankChildren:
    """They end when this process does, since their standard input closes then."""

    def __init__(self, launches: Sequence[RankLaunch]) -> None:
        """Start one process for each launch."""
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._links: list[socket.socket] = []
        for launch in launches:
            ours, theirs = socket.socketpair()
            with theirs:
                # -P: the working directory must not hide installed packages.
                self._children[launch.rank] = subprocess.Popen(
                    [sys.executable, "-P", "-m", "leadline.engine.unit.rank_process"],
                    stdin=theirs.fileno(),
                )
            ours.sendall(msgspec.json.encode(launch) + b"\n")
            self._links.append(ours)

    def find_ended(self) -> dict[int, str]:
        """Ranks whose process has ended, each with how."""
        codes = {rank: child.poll() for rank, child in self._children.items()}
        return {rank: _describe(code) for rank, code in codes.items() if code is not None}

    def end(self, patience_s: float) -> None:
        """Wait until all have ended, and kill those that have not after so many seconds."""
        until_s = time.monotonic() + patience_s
        for child in self._children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until_s - time.monotonic()))
        for child in self._children.values():
            if child.poll() is None:
                child.kill()
                child.wait()
        for link in self._links:
            link.close()


def _describe(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    return f"its process was ended by {signal.Signals(-code).name}"
