"""Options of the test run."""

import os
from pathlib import Path

import pytest

# Triton reads it once, when it is imported; without a GPU its kernels are run by its interpreter.
if not Path("/dev/nvidia0").exists():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--api-examples",
        type=int,
        default=5,
        help="random requests for each operation in tests/api/test_schemathesis.py",
    )
