"""Options of the test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--api-examples",
        type=int,
        default=5,
        help="random requests for each operation in tests/api/test_schemathesis.py",
    )
