"""Options of the test run."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

# Triton reads it once, when it is imported; without a GPU its kernels are run by its interpreter.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"

# `benchmarks` is importable without the repository root on the path: its folder `kernels` would
# hide the distribution of that name.
if "benchmarks" not in sys.modules:
    _package = ModuleType("benchmarks")
    _package.__path__ = [str(Path(__file__).parents[1] / "benchmarks")]
    sys.modules["benchmarks"] = _package


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--api-examples",
        type=int,
        default=5,
        help="random requests for each operation in tests/api/test_schemathesis.py",
    )
