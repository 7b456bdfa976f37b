"""The content blocks of messages that come in."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import BadRequestError


class CacheControl(BaseModel):
    """Anthropic's mark of what to cache; every full page is cached here, marked or not.

    Attributes:
        ttl: pages stay until their room is needed, however long that takes.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Block(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    cache_control: CacheControl | None = None


class TextBlock(_Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: Annotated[list[Any], Field(max_length=0)] | None = None


class ThinkingBlock(_Block):
    """What the assistant has thought, with the signature that came with it."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(_Block):
    """Thinking that its author alone can read; nothing of it reaches the model."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(_Block):
    """A call that the assistant has made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    caller: dict[str, Any] | None = None  # who called: a label of the answer that had it
    toolset_name: None = None


class UnreadableBlock(_Block):
    """A block that no model of the family can read, or that belongs to the tools of a server."""

    type: Literal[
        "image",
        "document",
        "search_result",
        "container_upload",
        "server_tool_use",
        "tool_reference",
        "browser_state",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_use",
        "mcp_tool_result",
        "compaction",
    ]

    def refusal(self, param: str) -> BadRequestError:
        """What its sender is told; `param` is where it stands."""
        return BadRequestError(
            f"'{param}.type' is {self.type!r}, but the model reads text only; leave the block out, "
            "or send what it says as a 'text' block",
            param=f"{param}.type",
            code="unsupported_content",
        )


ResultBlock = Annotated[TextBlock | UnreadableBlock, Field(discriminator="type")]


class ToolResultBlock(_Block):
    """What a call has returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None
    toolset_name: None = None


Block = Annotated[
    TextBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
    | UnreadableBlock,
    Field(discriminator="type"),
]


class Message(BaseModel):
    """One turn, or part of one: neighbours of one role are one turn."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


def text_of(content: str | list[ResultBlock] | list[TextBlock] | None, param: str) -> str:
    """The text of blocks that may be nothing else, a line break between two.

    Args:
        content: None has no text.
        param: where it stands.

    Raises:
        BadRequestError: a block is not text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for place, block in enumerate(content):
        if isinstance(block, UnreadableBlock):
            raise block.refusal(f"{param}[{place}]")
        texts.append(block.text)
    return "\n".join(texts)
