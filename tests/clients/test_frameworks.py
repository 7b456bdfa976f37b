"""Frameworks that speak OpenAI's API through its library."""

from typing import Any

import pytest

pytestmark = pytest.mark.clients
CLIENTS = ("litellm", "langchain", "instructor", "pydantic-ai", "openai-agents")


def test_case(use: Any, client: str, case: str) -> None:
    use(client, case)
