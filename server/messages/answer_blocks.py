"""The content blocks of an answer, as they come."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from pydantic_core import from_json, to_json

from leadline.server.delta import Delta
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
)
from leadline.server.messages.thinking import sign


class TextAnswer(msgspec.Struct, kw_only=True, tag="text"):
    """Text; never blank throughout."""

    text: str = ""


class ThinkingAnswer(msgspec.Struct, kw_only=True, tag="thinking"):
    """Thinking; its text is empty if it is not to be shown."""

    thinking: str = ""
    signature: str = ""


class ToolUseAnswer(msgspec.Struct, kw_only=True, tag="tool_use"):
    """A call; `input` is a JSON object."""

    id: str
    name: str
    input: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))


Block = TextAnswer | ThinkingAnswer | ToolUseAnswer


@dataclass(frozen=True, slots=True)
class BlockBegin:
    """A block begins, with nothing in it."""

    block: Block


@dataclass(frozen=True, slots=True)
class BlockDelta:
    """More of the block that began last.

    Attributes:
        type: Anthropic's, which says of what.
    """

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    text: str


@dataclass(frozen=True, slots=True)
class BlockEnd:
    """The block that began last has ended."""


BlockEvent = BlockBegin | BlockDelta | BlockEnd


class BlockWriter:
    """Cuts an answer into blocks: one for each stretch of thinking, of text, and each call.

    What the events say together does not depend on the deltas in which the answer came, though
    their number does. Blanks at the beginning of a text are held back until more comes than blanks:
    a text that would be blank has no block.
    """

    def __init__(self, *, shows_thinking: bool) -> None:
        """`shows_thinking`: blocks of thinking have its text; else their signature carries it."""
        self._shows_thinking = shows_thinking
        self._block: Block | None = None
        self._thought: list[str] = []  # of the block, if it is one of thinking
        self._blanks = ""

    @property
    def is_in_text(self) -> bool:
        """Whether text that comes now is no more than a `BlockDelta`."""
        return isinstance(self._block, TextAnswer)

    def push(self, delta: Delta) -> Iterator[BlockEvent]:
        """What a delta adds, and the end of the last block if it is the last delta."""
        is_text_alone = delta.text and not delta.events
        for event in (ContentText(delta.text),) if is_text_alone else delta.events:
            yield from self._on_event(event)
        if delta.finish_reason is not None:
            yield from self._end_block()

    def _on_event(self, event: Event) -> Iterator[BlockEvent]:
        match event:
            case ContentText(text):
                yield from self._on_text(text)
            case ReasoningText(text):
                if not isinstance(self._block, ThinkingAnswer):
                    yield from self._begin(ThinkingAnswer())
                self._thought.append(text)
                if self._shows_thinking:
                    yield BlockDelta("thinking_delta", text)
            case CallBegin(_, call_id, name):
                yield from self._begin(ToolUseAnswer(id=call_id, name=name))
            case CallArguments(_, text):
                yield BlockDelta("input_json_delta", text)

    def _on_text(self, text: str) -> Iterator[BlockEvent]:
        if not isinstance(self._block, TextAnswer):
            text = self._blanks + text
            if not text or text.isspace():
                self._blanks = text
                return
            yield from self._begin(TextAnswer())
        yield BlockDelta("text_delta", text)

    def _begin(self, block: Block) -> Iterator[BlockEvent]:
        yield from self._end_block()
        self._block = block
        yield BlockBegin(block)

    def _end_block(self) -> Iterator[BlockEvent]:
        self._blanks = ""
        if isinstance(self._block, ThinkingAnswer):
            signature = sign("".join(self._thought), shown=self._shows_thinking)
            self._thought = []
            yield BlockDelta("signature_delta", signature)
        if self._block is not None:
            yield BlockEnd()
        self._block = None


class BlockCollector:
    """The whole blocks of an answer that is not streamed."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._pieces: list[str] = []
        self._signature = ""

    def add(self, event: BlockEvent) -> None:
        """Take in the next event."""
        match event:
            case BlockBegin(block):
                self.blocks.append(block)
                self._pieces, self._signature = [], ""
            case BlockDelta("signature_delta", text):
                self._signature = text
            case BlockDelta(_, text):
                self._pieces.append(text)
            case BlockEnd():
                self.blocks[-1] = self._whole(self.blocks[-1], "".join(self._pieces))

    def _whole(self, block: Block, text: str) -> Block:
        match block:
            case TextAnswer():
                return TextAnswer(text=text)
            case ThinkingAnswer():
                return ThinkingAnswer(thinking=text, signature=self._signature)
            case ToolUseAnswer(id=id_, name=name):
                return ToolUseAnswer(id=id_, name=name, input=input_of(text))


def input_of(arguments: str) -> msgspec.Raw:
    """The input of a call, from the text that the model has written.

    Of a text that breaks off, the input has what is whole, as clients see it at the end of a
    stream. What is no JSON object is wrapped in one, as Anthropic advises: {"INVALID_JSON": text}.
    """
    try:
        value = from_json(arguments, allow_inf_nan=False, allow_partial=True)
    except ValueError:
        value = None
    if arguments.strip() and not isinstance(value, dict):
        value = {"INVALID_JSON": arguments}
    return msgspec.Raw(to_json(value or {}))
