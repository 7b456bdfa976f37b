"""What answers consist of does not depend on how they are cut; broken ones say something too."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.server.dialects.dialect import DEEPSEEK_TEXTS, KIMI_TEXTS, Form, Mark
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
)
from leadline.server.dialects.reader import AnswerReader

THINK_TEXTS = {Mark.THINK_BEGIN: "<think>", Mark.THINK_END: "</think>"}
TEXTS = {
    Form.DEEPSEEK_V3: {**THINK_TEXTS, **DEEPSEEK_TEXTS},
    Form.DEEPSEEK_V3_1: {**THINK_TEXTS, **DEEPSEEK_TEXTS},
    Form.KIMI_K2: {**THINK_TEXTS, **KIMI_TEXTS},
}
SHORT = {
    "[[": Mark.CALLS_BEGIN,
    "]]": Mark.CALLS_END,
    "((": Mark.CALL_BEGIN,
    "))": Mark.CALL_END,
    "||": Mark.NAME_END,
    "<t>": Mark.THINK_BEGIN,
    "</t>": Mark.THINK_END,
}
_SHORT = re.compile("(" + "|".join(map(re.escape, SHORT)) + ")")

Piece = str | Mark


def pieces_of(written: str) -> list[Piece]:
    """Text and marks; the marks are written short, as `SHORT` has them."""
    return [SHORT.get(piece, piece) for piece in _SHORT.split(written) if piece]


@dataclass
class Told:
    """What events say together."""

    reasoning: str = ""
    content: str = ""
    calls: list[list[str]] = field(default_factory=list)  # id, name, arguments

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case ReasoningText(text):
                    self.reasoning += text
                case ContentText(text):
                    self.content += text
                case CallBegin(index, call_id, name):
                    assert index == len(self.calls)
                    self.calls.append([call_id, name, ""])
                case CallArguments(index, text):
                    assert index == len(self.calls) - 1
                    self.calls[index][2] += text


def read(
    form: Form, pieces: Sequence[Piece], *, is_thinking: bool = False, max_calls: int | None = None
) -> Told:
    """What a reader tells of them."""
    reader = AnswerReader(
        form, lambda index: f"id{index}", is_thinking=is_thinking, max_calls=max_calls
    )
    told = Told()
    for piece in pieces:
        if isinstance(piece, Mark):
            told.add(reader.push_mark(piece, TEXTS[form][piece]))
        else:
            told.add(reader.push_text(piece))
        if reader.is_complete:
            return told
    told.add(reader.finish())
    assert reader.num_held == 0
    return told


V3, V3_1, KIMI = Form.DEEPSEEK_V3, Form.DEEPSEEK_V3_1, Form.KIMI_K2
FENCED = "((function||get_time\n```json\n{%s}\n```))"
ARGUMENTS = '{"city": "Z\u00fcrich"}'


def told(content: str = "", *calls: tuple[str, str, str], reasoning: str = "") -> Told:
    return Told(reasoning, content, [list(call) for call in calls])


@pytest.mark.parametrize(
    ("form", "written", "expected"),
    [
        # As they should be.
        (V3_1, "Hello.", told("Hello.")),
        (V3_1, "<t>Hm.</t>Hello.", told("Hello.", reasoning="Hm.")),
        (
            V3_1,
            f"I look.[[((get_time||{ARGUMENTS}))((f.g-h||{{}}))]]",
            told("I look.", ("id0", "get_time", ARGUMENTS), ("id1", "f.g-h", "{}")),
        ),
        (
            V3,
            f"[[{FENCED % ''}\n{FENCED % chr(10)}]]\n",
            told("", ("id0", "get_time", "{}"), ("id1", "get_time", "{\n}")),
        ),
        (
            KIMI,
            f"[[((functions.get_time:3||{ARGUMENTS}))((functions.a.b:4||[]))]]",
            told(
                "",
                ("functions.get_time:3", "get_time", ARGUMENTS),
                ("functions.a.b:4", "a.b", "[]"),
            ),
        ),
        # The other one's calls.
        (V3, "[[((f||{}))]]", told("", ("id0", "f", "{}"))),
        (V3_1, "[[" + FENCED % "" + "]]", told("", ("id0", "get_time", "{}"))),
        (V3_1, "[[((function||{}))]]", told("", ("id0", "function", "{}"))),
        # Blanks where they are allowed.
        (
            V3_1,
            "[[\n(( f \n|| {} ))\n((g||{}))\n]]\n",
            told("", ("id0", "f", " {} "), ("id1", "g", "{}")),
        ),
        (V3, "[[((function||f\n```json\n{}\n```\n))]]", told("", ("id0", "f", "{}"))),
        (V3, "[[((function||f\n\n ```json\n{}\n```))]]", told("", ("id0", "f", "{}"))),
        # No arguments at all are none.
        (V3_1, "[[((f||))]]", told("", ("id0", "f", "{}"))),
        (V3, "[[((function||f))]]", told("", ("id0", "f", "{}"))),
        (V3, "[[((function||f\n```json\n\n```))]]", told("", ("id0", "f", "{}"))),
        # Arguments that are no JSON are given as they are.
        (V3_1, "[[((f||{oh||</t> no))]]", told("", ("id0", "f", "{oh||</t> no"))),
        (V3, "[[((function||f\n{`1``}))]]", told("", ("id0", "f", "{`1``}"))),
        (V3, "[[((function||f\n```json\n{```}))]]", told("", ("id0", "f", "{```}"))),
        # What ends too early.
        (V3_1, '[[((f||{"a', told("", ("id0", "f", '{"a'))),
        (V3, "[[((function||f\n```json\n{}\n```", told("", ("id0", "f", "{}"))),
        (V3, "[[((function||f\n```js", told("", ("id0", "f", ""))),
        (V3_1, "[[((f||{}", told("", ("id0", "f", "{}"))),
        (V3_1, "[[((f||{}]] x", told(" x", ("id0", "f", "{}"))),
        (V3_1, "[[((f||{}((g||[]))]]", told("", ("id0", "f", "{}"), ("id1", "g", "[]"))),
        (V3_1, "a[[", told("a")),
        # What is no call is content.
        (V3_1, "a[[((f", told("a((f")),
        (V3_1, "a[[((f)) b", told("a((f)) b")),
        (V3_1, "[[((f g||{}))((h||{}))]]", told("((f g||{}))", ("id0", "h", "{}"))),
        (V3, "[[((function||f g\n```json\n{}))", told("((function||f g\n```json\n{}))")),
        (V3, "[[((function||f", told("((function||f")),
        # Text around calls, several sections, none.
        (V3_1, "a[[b((f||{})) c ]] d", told("ab c ]] d", ("id0", "f", "{}"))),
        (V3_1, "[[((f||{}))]]\n[[((g||{}))]]", told("", ("id0", "f", "{}"), ("id1", "g", "{}"))),
        (V3_1, "((f||{}))]] x", told(" x", ("id0", "f", "{}"))),
        (V3_1, "a))b]]c||d", told("a))b]]c||d")),
        # Kimi's ids, where they are wrong.
        (
            KIMI,
            "[[((f||{}))((functions.g||{}))]]",
            told("", ("functions.f:0", "f", "{}"), ("functions.g:1", "g", "{}")),
        ),
        # Reasoning.
        (V3_1, "a</t>b<t>c</t>d", told("abd", reasoning="c")),
        (V3_1, "<t>a<t>((b", told("", reasoning="a((b")),
        (V3_1, "<t>a[[((f||{}))]]b</t>c", told("bc", ("id0", "f", "{}"), reasoning="a")),
    ],
)
def test_an_answer(form: Form, written: str, expected: Told) -> None:
    assert read(form, pieces_of(written)) == in_full(form, expected)


def in_full(form: Form, short: Told) -> Told:
    """Marks within texts, as the dialect writes them."""

    def text_of(text: str) -> str:
        return "".join(
            TEXTS[form][piece] if isinstance(piece, Mark) else piece for piece in pieces_of(text)
        )

    calls = [[call_id, name, text_of(arguments)] for call_id, name, arguments in short.calls]
    return Told(text_of(short.reasoning), text_of(short.content), calls)


def test_thinking_may_be_open_at_the_start() -> None:
    pieces = pieces_of("\nHm.\n</t>\nYes.")
    assert read(V3, pieces, is_thinking=True) == told("\nYes.", reasoning="\nHm.\n")
    assert read(V3, ["Hm."], is_thinking=True) == told(reasoning="Hm.")


@pytest.mark.parametrize("written", ["[[((f||{}))((g||{}))]]", "[[((f||{}((g||{}", "((f||{}))x"])
def test_an_answer_may_end_with_a_call(written: str) -> None:
    assert read(V3_1, pieces_of(written), max_calls=1) == told("", ("id0", "f", "{}"))


def test_a_header_without_end_is_content() -> None:
    assert read(V3_1, ["a", Mark.CALL_BEGIN, "b" * 1000]).content.endswith("b" * 1000)
    long_line = ["a", Mark.CALL_BEGIN, "function", Mark.NAME_END, "b" * 300 + "\n{}"]
    assert read(V3, long_line).calls == []


fragments = st.sampled_from(
    [
        *SHORT,
        "function",
        "get_time",
        "functions.f:0",
        "\n```json\n",
        "```json",
        "\n```",
        "`",
        "\n",
        " ",
        "        ",
        '{"a": "b"}',
        "{",
        "x" * 130,
        "\u00fc",
        f"[[((function||f\n```json\n{ARGUMENTS}\n```))",
        f"[[((f||{ARGUMENTS}))",
    ]
)


@settings(max_examples=400)
@given(
    form=st.sampled_from(Form),
    written=st.lists(fragments, max_size=14).map("".join),
    cuts=st.lists(st.integers(1, 20), min_size=1, max_size=12),
    is_thinking=st.booleans(),
    max_calls=st.sampled_from([None, 1, 2]),
)
def test_any_cut_gives_what_the_whole_has(
    form: Form, written: str, cuts: list[int], is_thinking: bool, max_calls: int | None
) -> None:
    pieces = pieces_of(written)
    whole = read(form, pieces, is_thinking=is_thinking, max_calls=max_calls)
    cut: list[Piece] = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, Mark):
            cut.append(piece)
            continue
        rest = piece
        while rest:
            length = cuts[(number + len(rest)) % len(cuts)]
            cut.append(rest[:length])
            rest = rest[length:]
    assert read(form, cut, is_thinking=is_thinking, max_calls=max_calls) == whole
    singles: list[Piece] = [
        c for piece in pieces for c in ([piece] if isinstance(piece, Mark) else piece)
    ]
    assert read(form, singles, is_thinking=is_thinking, max_calls=max_calls) == whole
