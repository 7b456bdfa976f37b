"""OpenAI's own libraries."""

from typing import Any

import pytest

pytestmark = pytest.mark.clients
CLIENTS = ("openai-3", "openai-2", "openai-js")


def test_case(use: Any, client: str, case: str) -> None:
    use(client, case)
