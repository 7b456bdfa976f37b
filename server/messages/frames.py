"""The events of a streamed message."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from leadline.server.body_writer import BodyWriter
from leadline.server.delta import Delta
from leadline.server.dialects.events import ContentText, TextKind
from leadline.server.generation import Generation
from leadline.server.json_line import encode_line
from leadline.server.messages.answer_blocks import BlockBegin, BlockDelta, BlockEvent, BlockWriter
from leadline.server.messages.message import MessageAnswer, stop_of, usage_json
from leadline.server.plain_stream import PlainFrame, around_text

_FIELDS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
}


def frame(event: str, **fields: Any) -> bytes:
    """One event, its type also in its data."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), encode_line({"type": event, **fields}))


PING = frame("ping")
"""Sent where nothing else has come for a while."""


class MessageFrames:
    """Renders one generation as the events of a message."""

    def __init__(
        self, generation: Generation, *, shows_thinking: bool, fills_context: bool
    ) -> None:
        """`shows_thinking`: see `BlockWriter`; `fills_context`: see `stop_of`."""
        self._generation = generation
        self._writer = BlockWriter(shows_thinking=shows_thinking)
        self._fills_context = fills_context
        self._index = -1  # of the block that began last

    def take_writer(self, writer: BodyWriter) -> None:
        """Let frames of plain text be written to it; to be called before `frames` begins."""
        self._generation.plain_way = (self, writer)

    def plain_frame(self, kind: TextKind) -> PlainFrame | None:
        """See `PlainFrames`; of thinking, its block has to know."""
        if kind is not ContentText or not self._writer.is_in_text:
            return None
        return around_text(b"", self._block_frame(BlockDelta("text_delta", "")), b"")

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The whole stream; its first frame comes with the first delta.

        Raises:
            ApiError: as `Generation.deltas`.
        """
        has_begun = False
        async with aclosing(self._generation.deltas()) as deltas:
            async for delta in deltas:
                if not has_begun:
                    has_begun = True
                    yield self._start()
                for event in self._writer.push(delta):
                    yield self._block_frame(event)
                if delta.finish_reason is not None:
                    for last in self._end(delta):
                        yield last

    def _usage(self) -> dict[str, Any]:
        return usage_json(self._generation.usage, self._generation.state.page_size)

    def _start(self) -> bytes:
        generation = self._generation
        usage = self._usage() | {"output_tokens": 0}
        usage.pop("output_tokens_details", None)
        message = MessageAnswer(
            id=generation.response_id, model=generation.model, content=[], usage=usage
        )
        return frame("message_start", message=message)

    def _block_frame(self, event: BlockEvent) -> bytes:
        match event:
            case BlockBegin(block):
                self._index += 1
                return frame("content_block_start", index=self._index, content_block=block)
            case BlockDelta(type_, text):
                delta = {"type": type_, _FIELDS[type_]: text}
                return frame("content_block_delta", index=self._index, delta=delta)
        return frame("content_block_stop", index=self._index)

    def _end(self, delta: Delta) -> Iterator[bytes]:
        stop_reason, stop_sequence = stop_of(delta, fills_context=self._fills_context)
        stop = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        yield frame("message_delta", delta=stop, usage=self._usage())
        yield frame("message_stop")
