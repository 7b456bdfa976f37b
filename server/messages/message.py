"""The answer of `POST /v1/messages`, whole."""

from contextlib import aclosing
from typing import Any, Literal

import msgspec

from leadline.engine.request import FinishReason
from leadline.server.delta import Delta
from leadline.server.generation import Generation
from leadline.server.messages.answer_blocks import Block, BlockCollector, BlockWriter
from leadline.server.usage import Usage

StopReason = Literal[
    "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
]


class MessageAnswer(msgspec.Struct, kw_only=True):
    """What the assistant says.

    Attributes:
        stop_sequence: the one that ended the text.
        usage: see `usage_json`.
    """

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[Block]
    stop_reason: StopReason | None = None
    stop_sequence: str | None = None
    usage: dict[str, Any]


class TokenCount(msgspec.Struct):
    """The answer of `POST /v1/messages/count_tokens`."""

    input_tokens: int


def stop_of(delta: Delta, *, fills_context: bool) -> tuple[StopReason, str | None]:
    """Why an answer has ended, and at which stop sequence.

    Args:
        delta: the last one.
        fills_context: the model has no room for more than was asked for.
    """
    match delta.finish_reason:
        case FinishReason.TOOL_CALLS:
            return "tool_use", None
        case FinishReason.LENGTH:
            return "model_context_window_exceeded" if fills_context else "max_tokens", None
    if isinstance(delta.stop_reason, str):
        return "stop_sequence", delta.stop_reason
    return "end_turn", None


def usage_json(usage: Usage, page_size: int) -> dict[str, Any]:
    """The tokens of a message: the three kinds of input tokens together are the prompt's.

    Those read from the cache are told apart from those that are in it from now on, the rest of
    the prompt's full pages.

    Args:
        usage: as of the last delta.
        page_size: tokens a cache page; 0 if nothing is cached.
    """
    num_read = sum(usage.num_cached_tokens)
    num_written = usage.num_cache_writes(page_size)
    tokens: dict[str, Any] = {
        "input_tokens": usage.num_prompt_tokens - num_read - num_written,
        "cache_creation_input_tokens": num_written,
        "cache_read_input_tokens": num_read,
        "output_tokens": sum(usage.num_output_tokens),
    }
    if usage.num_thinking_tokens is not None:
        num_thinking_tokens = sum(usage.num_thinking_tokens)
        tokens["output_tokens_details"] = {"thinking_tokens": num_thinking_tokens}
    return tokens


async def whole_message(
    generation: Generation, *, shows_thinking: bool, fills_context: bool
) -> MessageAnswer:
    """The message that `MessageFrames` streams.

    Raises:
        ApiError: as `Generation.deltas`.
    """
    writer, collector = BlockWriter(shows_thinking=shows_thinking), BlockCollector()
    message = MessageAnswer(id=generation.response_id, model=generation.model, content=[], usage={})
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            for event in writer.push(delta):
                collector.add(event)
            if delta.finish_reason is not None:
                stop = stop_of(delta, fills_context=fills_context)
                message.stop_reason, message.stop_sequence = stop
    message.content = collector.blocks
    message.usage = usage_json(generation.usage, generation.state.page_size)
    return message
