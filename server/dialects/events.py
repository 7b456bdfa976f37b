"""What an answer consists of, piece by piece: reasoning, content, tool calls."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReasoningText:
    """More of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ContentText:
    """More of the content."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegin:
    """A tool call begins; `index` counts the answer's calls from 0."""

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, which are the text of a JSON object if the model is right."""

    index: int
    text: str


Event = ReasoningText | ContentText | CallBegin | CallArguments
TextKind = type[ReasoningText] | type[ContentText]


def merge(events: Iterable[Event]) -> list[Event]:
    """The events with neighbours of one kind made one."""
    merged: list[Event] = []
    for event in events:
        last = merged[-1] if merged else None
        match last, event:
            case (ReasoningText(before), ReasoningText(text)):
                merged[-1] = ReasoningText(before + text)
            case (ContentText(before), ContentText(text)):
                merged[-1] = ContentText(before + text)
            case (CallArguments(index, before), CallArguments(other, text)) if index == other:
                merged[-1] = CallArguments(index, before + text)
            case _:
                merged.append(event)
    return merged
