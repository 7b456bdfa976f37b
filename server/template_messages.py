"""What the server and the processes that render chat templates say to each other."""

from typing import Any

import msgspec


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: what to render; see `ChatTemplate`.

    Attributes:
        memory_bytes: that rendering may take.
    """

    sources: dict[str, str]
    variables: dict[str, Any]
    memory_bytes: int


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to be rendered; see `ChatTemplate.render`."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    settings: dict[str, Any] = {}


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The text, or a sentence for the user."""

    text: str = ""
    error: str | None = None
