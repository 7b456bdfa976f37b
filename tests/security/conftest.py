"""`leadline serve` with keys, as an attacker on the network sees it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

WAIT_S = 120.0
API_KEY, ADMIN_KEY, METRICS_KEY = "sk-api-1", "sk-admin-1", "sk-metrics-1"
LISTENS = re.compile(r"listens on http://([\d.]+):(\d+)")


@dataclass
class Target:
    """A running server.

    Attributes:
        address: where it listens.
        directory: that it makes its temporary files in.
    """

    process: "subprocess.Popen[str]"
    address: tuple[str, int]
    directory: Path


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("t")
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "leadline.server.cli", "serve", "leadline-demo"),
            *("--num-threads", "1", "--port", "0", "--kv-tokens", "4096"),
            *("--api-key", API_KEY, "--admin-api-key", ADMIN_KEY, "--metrics-api-key", METRICS_KEY),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"COLUMNS": "200", "HF_HUB_OFFLINE": "1", "TMPDIR": str(directory)},
    )
    assert process.stdout is not None
    address = None
    try:
        for line in process.stdout:
            if found := LISTENS.search(line):
                address = found[1], int(found[2])
            if line.startswith("  leadline chat"):
                break
        assert address is not None, "no start"
        yield Target(process, address, directory)
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)
