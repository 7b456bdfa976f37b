"""The launches of DeepSeek-V3 compile for Hopper, spill nothing and fit; no GPU is needed."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")

SHARED_BYTES = 232_448  # of a Hopper multiprocessor, all of which one program may have


def test_no_kernel_spills() -> None:
    """In a process of its own: this one may have only Triton's interpreter."""
    command = [sys.executable, "-m", "leadline.kernels.triton.production"]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len({r["launch"] for r in results}) > 50
    assert {r["kernel"] for r in results if r["num_wgmma"]} == {
        "small_kernel",
        "large_kernel",
        "grouped_kernel",
        "decode_kernel",
        "dense_kernel",
        "heads_kernel",
        "prefill_kernel",
    }
    assert [r for r in results if r["stack_bytes"]] == []
    assert [r for r in results if r["shared_bytes"] > SHARED_BYTES] == []
