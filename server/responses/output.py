"""The items of an answer, and the events that tell of them as they come."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from leadline.engine.request import FinishReason
from leadline.server.delta import Delta, TokenInText
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
    TextKind,
)
from leadline.server.logprobs import LogprobWriter

Logprob = dict[str, Any]
ItemStatus = Literal["in_progress", "completed", "incomplete"]
OutputEvent = tuple[str, dict[str, Any]]
"""An event's type and its fields, without the sequence number."""


class OutputText(msgspec.Struct, kw_only=True, tag="output_text"):
    """The text of a message; it has no annotations, and log-probabilities if they are asked for."""

    text: str = ""
    annotations: list[dict[str, Any]] = []
    logprobs: list[Logprob] = []


class OutputReasoning(msgspec.Struct, kw_only=True, tag="reasoning_text"):
    """The text of the reasoning."""

    text: str = ""


class MessageOutput(msgspec.Struct, kw_only=True, tag="message"):
    """What the assistant says."""

    id: str
    status: ItemStatus = "in_progress"
    role: Literal["assistant"] = "assistant"
    content: list[OutputText] = []


class ReasoningOutput(msgspec.Struct, kw_only=True, tag="reasoning"):
    """What the assistant has thought; there is no summary beside it."""

    id: str
    status: ItemStatus = "in_progress"
    summary: list[dict[str, Any]] = []
    content: list[OutputReasoning] = []


class CallOutput(msgspec.Struct, kw_only=True, tag="function_call"):
    """A call; `arguments` is the text that the model has written, a JSON object if it is right."""

    id: str
    status: ItemStatus = "in_progress"
    call_id: str
    name: str
    arguments: str = ""


OutputItem = MessageOutput | ReasoningOutput | CallOutput
_DELTAS = {
    MessageOutput: "response.output_text",
    ReasoningOutput: "response.reasoning_text",
    CallOutput: "response.function_call_arguments",
}


class OutputWriter:
    """Cuts an answer into items: one for each stretch of reasoning, of text, and each call.

    The items do not depend on the deltas in which the answer came, though the number of events
    does. Blanks at the beginning of a message are held back until more comes than blanks: a
    message that would be blank is left out, unless the answer would have neither message nor call.

    Attributes:
        items: so far; the last may be open, and has no content then.
    """

    def __init__(self, response_id: str, logprobs: LogprobWriter | None = None) -> None:
        """Write an answer.

        Args:
            response_id: the ids of the items come from it.
            logprobs: writes them; None if they are not told.
        """
        self.items: list[OutputItem] = []
        self._name = response_id.partition("_")[2]
        self._is_open = False
        self._pieces: list[str] = []  # of the open item
        self._logprobs: list[Logprob] = []  # of the open item
        self._blanks = ""
        self._blank_logprobs: list[Logprob] = []
        self._logprob_writer = logprobs
        self._tokens: deque[TokenInText] = deque()  # of content that has not been told of
        self._num_content_chars = 0

    def push(self, delta: Delta) -> Iterator[OutputEvent]:
        """The events of a delta, and the end of the last item if it is the last delta."""
        if self._logprob_writer is not None:
            self._tokens += [t for t in delta.tokens if t.content_offset is not None]
        is_text_alone = delta.text and not delta.events
        for event in (ContentText(delta.text),) if is_text_alone else delta.events:
            yield from self._on_event(event)
        if delta.finish_reason is not None:
            yield from self._end(delta.finish_reason)

    def plain_event(self, kind: TextKind) -> OutputEvent | None:
        """The event of more text of a kind, empty here; None if such text may bring more.

        Log-probabilities are not told. The texts are to be given to `add_plain`.
        """
        item_type = MessageOutput if kind is ContentText else ReasoningOutput
        if not self._continues(item_type) or self._logprob_writer is not None:
            return None
        event = self._more("")
        self._pieces.pop()
        return event

    def add_plain(self, text: str) -> None:
        """Take in the text of an event as `plain_event` has it."""
        self._pieces.append(text)

    def close(self) -> None:
        """End the open item where the answer breaks off; no event tells of it."""
        for _ in self._end_item("incomplete"):
            pass

    def _on_event(self, event: Event) -> Iterator[OutputEvent]:
        match event:
            case ContentText(text):
                yield from self._on_text(text)
            case ReasoningText(text):
                self._blanks, self._blank_logprobs = "", []
                if not self._continues(ReasoningOutput):
                    yield from self._begin(ReasoningOutput(id=self._id("rs")))
                yield self._more(text)
            case CallBegin(_, call_id, name):
                yield from self._begin(CallOutput(id=self._id("fc"), call_id=call_id, name=name))
            case CallArguments(_, text):
                yield self._more(text)

    def _on_text(self, text: str) -> Iterator[OutputEvent]:
        self._num_content_chars += len(text)
        logprobs = self._taken_logprobs()
        if not self._continues(MessageOutput):
            text, logprobs = self._blanks + text, self._blank_logprobs + logprobs
            if not text or text.isspace():
                self._blanks, self._blank_logprobs = text, logprobs
                return
            yield from self._begin(MessageOutput(id=self._id("msg")))
        yield self._more(text, logprobs)

    def _taken_logprobs(self) -> list[Logprob]:
        """Of the tokens of all content so far that have not been told of yet."""
        if self._logprob_writer is None:
            return []
        taken = []
        while self._tokens and (self._tokens[0].content_offset or 0) < self._num_content_chars:
            taken.append(self._tokens.popleft())
        return self._logprob_writer.entries(taken)

    def _end(self, reason: FinishReason) -> Iterator[OutputEvent]:
        is_whole = reason is not FinishReason.LENGTH
        if is_whole and all(isinstance(item, ReasoningOutput) for item in self.items):
            blanks, logprobs = self._blanks, self._blank_logprobs
            yield from self._begin(MessageOutput(id=self._id("msg")))
            if blanks:
                yield self._more(blanks, logprobs)
        yield from self._end_item("completed" if is_whole else "incomplete")

    def _continues(self, item_type: type[OutputItem]) -> bool:
        return self._is_open and isinstance(self.items[-1], item_type)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._name}{len(self.items):02x}"

    def _begin(self, item: OutputItem) -> Iterator[OutputEvent]:
        yield from self._end_item("completed")
        self.items.append(item)
        self._is_open = True
        yield "response.output_item.added", {"output_index": len(self.items) - 1, "item": item}
        if not isinstance(item, CallOutput):
            yield "response.content_part.added", self._place(item) | {"part": _part(item, "")}

    def _more(self, text: str, logprobs: Sequence[Logprob] = ()) -> OutputEvent:
        self._pieces.append(text)
        self._logprobs += logprobs
        item = self.items[-1]
        fields: dict[str, Any] = {"delta": text}
        if isinstance(item, MessageOutput):
            fields["logprobs"] = logprobs
        return f"{_DELTAS[type(item)]}.delta", self._place(item) | fields

    def _end_item(self, status: ItemStatus) -> Iterator[OutputEvent]:
        if self._continues(MessageOutput) and (late := self._taken_logprobs()):
            yield self._more("", late)  # of a token that a stop string has cut in two
        text, self._pieces, self._blanks = "".join(self._pieces), [], ""
        logprobs, self._logprobs, self._blank_logprobs = self._logprobs, [], []
        if not self._is_open:
            return
        self._is_open = False
        item = self.items[-1]
        place, done = self._place(item), f"{_DELTAS[type(item)]}.done"
        whole: OutputItem
        if isinstance(item, CallOutput):
            whole = msgspec.structs.replace(item, status=status, arguments=text)
            yield done, place | {"name": item.name, "arguments": text}
        else:
            part = _part(item, text, logprobs)
            whole = msgspec.structs.replace(item, status=status, content=[part])
            is_message = isinstance(item, MessageOutput)
            extra: dict[str, Any] = {"logprobs": logprobs} if is_message else {}
            yield done, place | {"text": text} | extra
            yield "response.content_part.done", place | {"part": part}
        self.items[-1] = whole
        yield (
            "response.output_item.done",
            {"output_index": len(self.items) - 1, "item": whole},
        )

    def _place(self, item: OutputItem) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": item.id, "output_index": len(self.items) - 1}
        return place if isinstance(item, CallOutput) else place | {"content_index": 0}


def _part(
    item: MessageOutput | ReasoningOutput, text: str, logprobs: Sequence[Logprob] = ()
) -> OutputText | OutputReasoning:
    if isinstance(item, MessageOutput):
        return OutputText(text=text, logprobs=list(logprobs))
    return OutputReasoning(text=text)
