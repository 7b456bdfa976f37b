"""Anthropic's own library."""

from typing import Any

import pytest

pytestmark = pytest.mark.clients
CLIENTS = ("anthropic",)


def test_case(use: Any, client: str, case: str) -> None:
    use(client, case)
