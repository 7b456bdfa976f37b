"""`instructions` and `input` in the form of this API, as the messages of chat completions."""

from collections.abc import Sequence
from typing import Any

from leadline.server.responses.items import (
    CallItem,
    Item,
    MessageItem,
    OtherItem,
    ReasoningItem,
    ResultItem,
    text_of,
)

ChatMessage = dict[str, Any]


def chat_messages(
    instructions: str | None, items: Sequence[Item], *, num_earlier: int = 0
) -> list[ChatMessage]:
    """The conversation as chat completions have it.

    What an assistant has thought, said and called, one after the other, is one message of its own;
    reasoning that comes after it begins the next.

    Args:
        instructions: what the system says first.
        items: in their order.
        num_earlier: how many of them come from an earlier response, and are not `input`.

    Raises:
        BadRequestError: an item, or a part of one, that cannot be read.
    """
    messages: list[ChatMessage] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    for place, item in enumerate(items, -num_earlier):
        param = f"input[{place}]"
        match item:
            case MessageItem(role="assistant"):
                _assistant(messages)["content"] += text_of(item.content, f"{param}.content")
            case MessageItem():
                text = text_of(item.content, f"{param}.content")
                messages.append({"role": item.role, "content": text})
            case ReasoningItem():
                message = _assistant(messages, begins=True)
                if item.text:
                    message["reasoning_content"] = item.text
            case CallItem():
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                _assistant(messages).setdefault("tool_calls", []).append(call)
            case ResultItem():
                text = text_of(item.output, f"{param}.output")
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text})
            case OtherItem():
                raise item.refusal(param)
    for message in messages:
        if message["content"] == "" and "tool_calls" in message:
            message["content"] = None  # R1's template shows calls of such messages only
    return messages


def _assistant(messages: list[ChatMessage], *, begins: bool = False) -> ChatMessage:
    """The assistant's message that goes on, or a new one."""
    if begins or not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    return messages[-1]
