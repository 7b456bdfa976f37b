"""Reads an answer as it comes: text and marks to reasoning, content and tool calls."""

import enum
import re
from collections.abc import Callable

from leadline.server.dialects.dialect import FENCE_BEGIN, FENCE_END, Form, Mark
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
    TextKind,
)

MAX_HEADER_CHARS = 256
"""Of what stands before a call's arguments; with more it is no call."""

_NAME = re.compile(r"[^\s{}`\"]+")
_KIMI_ID = re.compile(r"functions\.(.+):\d+")
_MAX_BLANKS = 8
_FENCE_TAIL = re.compile(rf"\s{{0,{_MAX_BLANKS}}}`{{0,3}}\s{{0,{_MAX_BLANKS}}}\Z")


class _State(enum.Enum):
    THINKING = enum.auto()
    CONTENT = enum.auto()
    BETWEEN = enum.auto()  # before, between and after calls, where blanks are nobody's
    HEADER = enum.auto()  # from a call's beginning to the mark that ends its name
    NAME = enum.auto()  # V3: from that mark to the end of the name's line
    ARGUMENTS = enum.auto()


class AnswerReader:
    """Follows one answer. What it says in all does not depend on how the text is cut.

    It never fails. A call whose name cannot be read, or that ends before its arguments, is given
    as content, marks and all; arguments are given as they are, JSON or not. A call ends with its
    own mark, that of the next call or of all calls, or the answer. Text between or after calls is
    content, but for blanks; a further section goes on counting; marks that end nothing are content,
    but for `</think>`. Calls that begin within the reasoning end it. V3's and V3.1's calls are both
    understood, whichever is the model's own.

    Attributes:
        num_calls: calls that have begun.
        is_complete: as many calls as are wanted have been made; nothing more is to be pushed.
    """

    def __init__(
        self,
        form: Form | None,
        make_id: Callable[[int], str],
        *,
        is_thinking: bool = False,
        max_calls: int | None = None,
    ) -> None:
        """Read an answer.

        Args:
            form: of calls; None if there are none to be read.
            make_id: the id of a call that the model does not name, by index.
            is_thinking: the prompt ends within thinking.
            max_calls: the answer ends with so many calls; None for any number.
        """
        self.num_calls = 0
        self.is_complete = False
        self._form = form
        self._make_id = make_id
        self._max_calls = max_calls
        self._state = _State.THINKING if is_thinking else _State.CONTENT
        self._events: list[Event] = []
        self._held = ""
        self._raw = ""  # of the call that has not begun yet, as content would have it
        self._fence: bool | None = False  # around the arguments; None while nobody knows
        self._has_arguments = False

    @property
    def num_held(self) -> int:
        """Characters that have been pushed, and not yet become events."""
        return len(self._held)

    @property
    def may_hold_content(self) -> bool:
        """Whether any of these may yet become content."""
        return bool(self._held) and self._state is not _State.ARGUMENTS

    @property
    def kind_of_text(self) -> TextKind | None:
        """What text becomes that comes now; None where that is not decided."""
        if self._state is _State.THINKING:
            return ReasoningText
        return ContentText if self._state is _State.CONTENT and not self.is_complete else None

    def push_text(self, text: str) -> list[Event]:
        """Take in text that is no mark."""
        assert not self.is_complete, "the answer has ended"
        if text:
            self._on_text(text)
        return self._taken()

    def push_mark(self, mark: Mark, text: str) -> list[Event]:
        """Take in a mark; `text` is how it is written."""
        assert not self.is_complete, "the answer has ended"
        match self._state:
            case _State.THINKING:
                self._in_thinking(mark, text)
            case _State.CONTENT | _State.BETWEEN:
                self._in_content(mark, text)
            case _State.HEADER | _State.NAME:
                self._in_header(mark, text)
            case _State.ARGUMENTS:
                self._in_arguments(mark, text)
        return self._taken()

    def finish(self) -> list[Event]:
        """What was held back, now that no more will come."""
        match self._state:
            case _State.HEADER | _State.NAME:
                self._give_up()
            case _State.ARGUMENTS:
                self._end_arguments()
        self._held = ""
        return self._taken()

    def _taken(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _on_text(self, text: str) -> None:
        match self._state:
            case _State.THINKING:
                self._events.append(ReasoningText(text))
            case _State.CONTENT:
                self._events.append(ContentText(text))
            case _State.BETWEEN:
                self._held += text
                if not self._held.isspace():
                    self._to_content()
            case _State.HEADER:
                self._held += text
                if len(self._held) > MAX_HEADER_CHARS:
                    self._give_up()
            case _State.NAME:
                self._held += text
                self._read_name_line()
            case _State.ARGUMENTS:
                self._on_arguments(text)

    def _in_thinking(self, mark: Mark, text: str) -> None:
        if mark is Mark.THINK_END:
            self._state = _State.CONTENT
        elif mark is Mark.CALLS_BEGIN:
            self._state = _State.BETWEEN
        elif mark is not Mark.THINK_BEGIN:
            self._events.append(ReasoningText(text))

    def _in_content(self, mark: Mark, text: str) -> None:
        is_between = self._state is _State.BETWEEN
        match mark:
            case Mark.THINK_BEGIN:
                self._state, self._held = _State.THINKING, ""
            case Mark.CALLS_BEGIN:
                self._state, self._held = _State.BETWEEN, ""
            case Mark.CALL_BEGIN:
                self._begin_header(text)
            case Mark.THINK_END:
                pass
            case Mark.CALL_END | Mark.CALLS_END if is_between:
                self._held = ""
            case _:
                self._held += text
                self._to_content()

    def _begin_header(self, text: str) -> None:
        if self.num_calls == self._max_calls:
            self.is_complete = True
            return
        self._state, self._held, self._raw = _State.HEADER, "", text

    def _in_header(self, mark: Mark, text: str) -> None:
        if mark is Mark.NAME_END and self._state is _State.HEADER:
            header = self._held.strip()
            if self._form is not Form.KIMI_K2 and header == "function":
                self._raw += self._held + text
                self._state, self._held = _State.NAME, ""
            elif _NAME.fullmatch(header):
                self._begin_call(header)
            else:
                self._held += text
                self._give_up()
            return
        name = self._held.strip()
        if mark is Mark.CALL_END and self._state is _State.NAME and _NAME.fullmatch(name):
            self._begin_call(name)
            self._in_arguments(mark, text)
            return
        self._give_up()
        self._in_content(mark, text)

    def _read_name_line(self) -> None:
        """V3's name, if its line is complete; a tool of V3.1 may be called `function`."""
        begun = self._held.lstrip()
        line, has_end, rest = begun.partition("\n")
        num_blanks = len(self._held) - len(begun)
        if line.startswith("{") and num_blanks < MAX_HEADER_CHARS:
            self._begin_call("function")
            self._on_arguments(begun)
        elif num_blanks + len(line) > MAX_HEADER_CHARS:
            self._give_up()
        elif has_end and _NAME.fullmatch(line.strip()):
            self._begin_call(line.strip())
            self._fence = None
            if rest:
                self._on_arguments(rest)
        elif has_end:
            self._give_up()

    def _begin_call(self, header: str) -> None:
        index, name, call_id = self.num_calls, header, None
        if self._form is Form.KIMI_K2:
            match = _KIMI_ID.fullmatch(header)
            name = match[1] if match else header.removeprefix("functions.")
            call_id = header if match else f"functions.{name}:{index}"
        self._events.append(CallBegin(index, call_id or self._make_id(index), name))
        self.num_calls += 1
        self._state, self._held, self._raw = _State.ARGUMENTS, "", ""
        self._fence, self._has_arguments = False, False

    def _on_arguments(self, text: str) -> None:
        self._held += text
        if self._fence is None:
            begun = self._held.lstrip()
            if FENCE_BEGIN.startswith(begun):
                return
            self._fence = begun.startswith(FENCE_BEGIN)
            if self._fence:
                self._held = begun.removeprefix(FENCE_BEGIN)
        if not self._fence:
            self._give_arguments(len(self._held))
        elif match := _FENCE_TAIL.search(self._held):
            self._give_arguments(match.start())

    def _give_arguments(self, num_chars: int) -> None:
        text, self._held = self._held[:num_chars], self._held[num_chars:]
        if text:
            self._has_arguments = self._has_arguments or not text.isspace()
            self._events.append(CallArguments(self.num_calls - 1, text))

    def _end_arguments(self) -> None:
        if self._fence is None or (self._fence and self._held.strip() == FENCE_END):
            self._held = ""
        self._give_arguments(len(self._held))

    def _in_arguments(self, mark: Mark, text: str) -> None:
        if mark in (Mark.NAME_END, Mark.THINK_BEGIN, Mark.THINK_END):
            self._on_arguments(text)
            return
        self._end_arguments()
        if not self._has_arguments:
            self._events.append(CallArguments(self.num_calls - 1, "{}"))
        self._state = _State.BETWEEN
        if self.num_calls == self._max_calls:
            self.is_complete = True
        elif mark is not Mark.CALL_END:
            self._in_content(mark, text)

    def _give_up(self) -> None:
        """What was to be a call is content."""
        self._held, self._raw = self._raw + self._held, ""
        self._to_content()

    def _to_content(self) -> None:
        self._state = _State.CONTENT
        text, self._held = self._held, ""
        self._events.append(ContentText(text))
