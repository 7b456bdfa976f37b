"""The items of an answer, the events that tell of them, and the pieces in which it came."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.request import FinishReason
from leadline.server.delta import Delta
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
    merge,
)
from leadline.server.responses.output import OutputEvent, OutputWriter

TEXTS = st.text("ab \n{}", min_size=1, max_size=6)
REASONS = st.sampled_from([FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS])


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of an answer, neighbours of one kind made one."""
    events: list[Event] = []
    num_calls = 0
    for kind in draw(st.lists(st.sampled_from("rct"), max_size=6)):
        if kind == "r":
            events.append(ReasoningText(draw(TEXTS)))
        elif kind == "c":
            events.append(ContentText(draw(TEXTS)))
        else:
            events.append(CallBegin(num_calls, f"call_{num_calls}", "f"))
            if text := draw(st.text("{}1", max_size=5)):
                events.append(CallArguments(num_calls, text))
            num_calls += 1
    return merge(events)


@st.composite
def splits(draw: st.DrawFn, events: list[Event], reason: FinishReason) -> list[Delta]:
    """Deltas that say the same."""
    pieces: list[Event] = []
    for event in events:
        if isinstance(event, CallBegin):
            pieces.append(event)
            continue
        cuts = sorted(draw(st.sets(st.integers(1, len(event.text)), max_size=3)))
        ends = [*cuts, len(event.text)]
        for begin, end in zip([0, *cuts], ends, strict=True):
            if end > begin:
                pieces.append(replace(event, text=event.text[begin:end]))
    groups: list[list[Event]] = [[]]
    for piece in pieces:
        if draw(st.booleans()):
            groups.append([])
        groups[-1].append(piece)
    deltas = [delta(group) for group in groups]
    last = draw(st.booleans())
    return [*deltas, delta([], reason)] if last else [*deltas[:-1], delta(groups[-1], reason)]


def delta(events: list[Event], reason: FinishReason | None = None) -> Delta:
    text = "".join(event.text for event in events if isinstance(event, ContentText))
    return Delta(0, text, reason, 1, 0, events=merge(events))


def written(deltas: list[Delta]) -> tuple[OutputWriter, list[OutputEvent]]:
    writer = OutputWriter("resp_1")
    return writer, [event for delta in deltas for event in writer.push(delta)]


def replayed(events: list[OutputEvent]) -> Iterator[dict[str, Any]]:
    """What a client makes of deltas alone, each checked against what is said at its end."""
    items: list[dict[str, Any]] = []
    texts: list[str] = []
    for name, fields in msgspec.json.decode(msgspec.json.encode(events)):
        match name.removeprefix("response.").split("."):
            case ["output_item", "added"]:
                assert fields["output_index"] == len(items)
                assert fields["item"]["status"] == "in_progress"
                items.append(fields["item"])
                texts.append("")
            case ["content_part", "added"]:
                items[-1]["content"].append(fields["part"])
                assert fields["part"]["text"] == ""
            case [_, "delta"]:
                assert (fields["item_id"], fields["output_index"]) == (
                    items[-1]["id"],
                    len(items) - 1,
                )
                texts[-1] += fields["delta"]
            case ["output_text" | "reasoning_text", "done"]:
                assert fields["text"] == texts[-1]
                items[-1]["content"][0]["text"] = texts[-1]
            case ["function_call_arguments", "done"]:
                assert fields["arguments"] == texts[-1]
                items[-1]["arguments"] = texts[-1]
            case ["content_part", "done"]:
                assert fields["part"] == items[-1]["content"][0]
            case ["output_item", "done"]:
                assert fields["item"] == items[-1] | {"status": fields["item"]["status"]}
                yield fields["item"]


@given(st.data(), answers(), REASONS)
def test_items_do_not_depend_on_the_pieces(
    data: st.DataObject, events: list[Event], reason: FinishReason
) -> None:
    whole, _ = written([delta(events, reason)])
    split, told = written(data.draw(splits(events, reason)))
    assert split.items == whole.items
    items = msgspec.json.decode(msgspec.json.encode(split.items))
    assert list(replayed(told)) == items
    assert all(item["status"] == "completed" for item in items[:-1])
    if items:
        is_whole = reason is not FinishReason.LENGTH
        assert items[-1]["status"] == ("completed" if is_whole else "incomplete")


@given(answers())
def test_nothing_is_lost_but_blank_messages(events: list[Event]) -> None:
    writer, _ = written([delta(events, FinishReason.STOP)])
    told = [
        item.arguments if hasattr(item, "arguments") else item.content[0].text
        for item in writer.items
    ]
    kept = "".join(
        event.text
        for event in events
        if not isinstance(event, CallBegin)
        and not (isinstance(event, ContentText) and event.text.isspace())
    )
    blanks = not kept and not any(isinstance(event, CallBegin) for event in events)
    assert "".join(told) == kept or blanks or told[-1].isspace()


def test_an_answer_that_breaks_off_has_what_there_was() -> None:
    writer, events = written([delta([ReasoningText("a"), ContentText("b")])])
    assert events[-1][0] == "response.output_text.delta"
    writer.close()
    assert [(item.status, item.content[0].text) for item in writer.items] == [  # type: ignore[union-attr]
        ("completed", "a"),
        ("incomplete", "b"),
    ]


def test_blanks_between_reasoning_belong_to_nothing() -> None:
    events = [ReasoningText("a"), ContentText(" "), ReasoningText("b"), ContentText("c")]
    writer, _ = written([delta(events, FinishReason.STOP)])
    assert [item.content[0].text for item in writer.items] == ["ab", "c"]  # type: ignore[union-attr]
