"""`system` and `messages` in Anthropic's form, as the messages of chat completions."""

import re
from collections.abc import Sequence
from typing import Any

from leadline.server.errors import BadRequestError, invalid
from leadline.server.messages.blocks import (
    Block,
    Message,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UnreadableBlock,
    text_of,
)
from leadline.server.messages.thinking import thought

# Claude Code's first line. It differs from request to request, and with it would every page.
_BILLING_LINES = re.compile(r"(?:x-anthropic-billing-header:[^\n]*(?:\n|\Z))+\s*")

ChatMessage = dict[str, Any]


def chat_messages(
    system: str | Sequence[TextBlock] | None, messages: Sequence[Message]
) -> list[ChatMessage]:
    """The conversation as chat completions have it.

    Neighbouring messages of one role become one; the results in a message come before its text.

    Raises:
        BadRequestError: a block that cannot be read, or that does not belong to its role.
    """
    converted: list[ChatMessage] = []
    if text := _system_text(system):
        converted.append({"role": "system", "content": text})
    for index, message in enumerate(messages):
        param = f"messages[{index}].content"
        if isinstance(message.content, str):
            blocks: list[Block] = [TextBlock(type="text", text=message.content)]
        else:
            blocks = message.content
        match message.role:
            case "user":
                _add_user(converted, blocks, param)
            case "assistant":
                _add_assistant(converted, blocks, param)
            case "system":
                texts = [
                    _of_type(block, TextBlock, param, n).text for n, block in enumerate(blocks)
                ]
                converted.append({"role": "system", "content": _system_text("\n\n".join(texts))})
    return converted


def _system_text(system: str | Sequence[TextBlock] | None) -> str:
    """A paragraph a block, less the lines that are no business of the model's."""
    texts = (
        [system or ""] if system is None or isinstance(system, str) else [b.text for b in system]
    )
    kept = [
        text[match.end() :] if (match := _BILLING_LINES.match(text)) else text for text in texts
    ]
    return "\n\n".join(text for text in kept if text)


def _add_user(converted: list[ChatMessage], blocks: Sequence[Block], param: str) -> None:
    texts = []
    for place, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            text = text_of(block.content, f"{param}[{place}].content")
            if block.is_error:
                text = f"Error: {text}"
            result = {"role": "tool", "tool_call_id": block.tool_use_id, "content": text}
            converted.append(result)
        else:
            texts.append(_of_type(block, TextBlock, param, place).text)
    if not texts and blocks:
        return
    text = "\n".join(texts)
    if converted and converted[-1]["role"] == "user":
        converted[-1]["content"] += f"\n{text}"
    else:
        converted.append({"role": "user", "content": text})


def _add_assistant(converted: list[ChatMessage], blocks: Sequence[Block], param: str) -> None:
    if converted and converted[-1]["role"] == "assistant":
        message = converted[-1]
    else:
        message = {"role": "assistant", "content": ""}
        converted.append(message)
    for place, block in enumerate(blocks):
        match block:
            case TextBlock(text=text):
                message["content"] += text
            case ThinkingBlock(thinking=thinking, signature=signature):
                reasoning = message.get("reasoning_content", "") + thought(thinking, signature)
                if reasoning:
                    message["reasoning_content"] = reasoning
            case ToolUseBlock(id=id_, name=name, input=arguments):
                function = {"name": name, "arguments": arguments}
                call = {"id": id_, "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
            case RedactedThinkingBlock():
                pass
            case _:
                raise _misplaced(block, f"{param}[{place}]")


def _of_type(block: Block, block_type: type[TextBlock], param: str, place: int) -> TextBlock:
    if not isinstance(block, block_type):
        raise _misplaced(block, f"{param}[{place}]")
    return block


def _misplaced(block: Block, param: str) -> BadRequestError:
    """What is said of a block that its message may not have."""
    if isinstance(block, UnreadableBlock):
        return block.refusal(param)
    return invalid(
        f"{param}.type",
        f"'{param}.type' is {block.type!r}, which does not belong to this role; allowed: 'text', "
        "from a user also 'tool_result', from an assistant also 'tool_use', 'thinking' and "
        "'redacted_thinking'",
    )
