"""One choice's tokens to its text, reasoning and calls, cut where the text ends."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from leadline.engine.request import (
    FinishReason,
    RequestOutput,
)
from leadline.server.delta import Delta, TokenInText
from leadline.server.detokenizer import Detokenizer
from leadline.server.dialects.dialect import Mark
from leadline.server.dialects.events import CallBegin, ContentText, Event, TextKind, merge
from leadline.server.dialects.reader import AnswerReader
from leadline.server.stop_strings import StopStringMatcher
from leadline.server.text_rules import TextRules
from leadline.server.thinking import ThinkingCounter


class ChoiceText:
    """Follows one choice; text and tokens are cut at the token that completes the match.

    What the deltas say together depends on the tokens alone, not on the outputs they came in.
    Where the choice has reasoning or calls, stop strings are looked for in its content alone: what
    the model thinks is not the answer yet, and half a call would be of no use.
    """

    def __init__(
        self,
        index: int,
        token_bytes: Callable[[int], bytes],
        rules: TextRules,
        thinking: ThinkingCounter | None = None,
        *,
        reader: AnswerReader | None = None,
        marks: Mapping[int, tuple[Mark, str]] | None = None,
    ) -> None:
        """Follow a choice.

        Args:
            index: see `Delta`.
            token_bytes: see `Detokenizer`.
            rules: where the text ends.
            thinking: counts it, if it is marked.
            reader: tells reasoning, content and calls apart; without one, all is content.
            marks: the tokens that the reader is to see as marks.
        """
        self._index = index
        self._rules = rules
        self._detokenizer = Detokenizer(token_bytes)
        self._matcher = StopStringMatcher(rules.stop_strings, is_included=rules.includes_stop)
        self._thinking = thinking
        self._reader = reader
        self._marks = marks or {}
        self._has_calls = False
        self._is_counted = thinking is not None and reader is None
        self._is_watched = bool(rules.stop_strings or rules.keeps_tokens or self._is_counted)
        self._num_tokens = 0
        self._num_decoded_chars = 0
        self._num_held_chars = 0  # that may be, or become, part of a stop string
        self._num_content_chars = 0
        self._undecided: list[TokenInText] = []  # that may be, or become, content
        self._held: deque[tuple[int, TokenInText]] = deque()  # each with the end of its text

    def push(self, output: RequestOutput) -> Delta:
        """The text that an output adds.

        The delta finishes with `stop` or `tool_calls` before the output does where a stop string is
        complete, or the last call that is wanted; the engine is to be told, and nothing may be
        pushed afterwards.
        """
        if (delta := self._push_plain(output)) is not None:
            return delta
        events: list[Event] = []
        finish_reason = output.finish_reason
        num_shown = len(output.token_ids)
        if output.stop_token_id is not None and not self._rules.includes_stop:
            num_shown -= 1  # the token that ends the text counts, and is no part of it
        for place in range(len(output.token_ids)):
            events += self._push_token(output, place, is_shown=place < num_shown)
            if self._has_ended:
                finish_reason = FinishReason.STOP
                break
        if finish_reason is not None:
            events += self._flush()
            if self._has_ended:
                finish_reason = FinishReason.STOP
            if finish_reason is FinishReason.STOP and self._has_calls:
                finish_reason = FinishReason.TOOL_CALLS
        return Delta(
            index=self._index,
            text="".join(event.text for event in events if isinstance(event, ContentText)),
            events=() if self._reader is None else merge(events),
            finish_reason=finish_reason,
            num_tokens=self._num_tokens,
            num_cached_tokens=output.num_cached_tokens,
            num_thinking_tokens=0 if self._thinking is None else self._thinking.num_tokens,
            stop_reason=self._stop_reason(output),
            tokens=self._release(is_last=finish_reason is not None),
            prompt_logprobs=output.prompt_logprobs,
            speculation=output.speculation,
            is_draft=output.num_accepted > 0,
        )

    def _push_plain(self, output: RequestOutput) -> Delta | None:
        """As `push`, where nothing but more text of one kind can have come; None where more may.

        That is nearly every output, and the time of a step for all streams depends on it.
        """
        token_ids = output.token_ids
        kind = ContentText if self._reader is None else self._reader.kind_of_text
        if (
            kind is None
            or self._is_watched
            or output.finish_reason is not None
            or not self._marks.keys().isdisjoint(token_ids)
        ):
            return None
        text = "".join(map(self._detokenizer.push, token_ids))
        self._num_tokens += len(token_ids)
        self._num_decoded_chars += len(text)
        if self._thinking is not None:
            self._thinking.push_plain(len(token_ids))
        return Delta(
            index=self._index,
            text=text if kind is ContentText else "",
            events=(kind(text),) if text and self._reader is not None else (),
            finish_reason=None,
            num_tokens=self._num_tokens,
            num_cached_tokens=output.num_cached_tokens,
            num_thinking_tokens=0 if self._thinking is None else self._thinking.num_tokens,
            prompt_logprobs=output.prompt_logprobs,
            is_draft=output.num_accepted > 0,
        )

    @property
    def plain_kind(self) -> TextKind | None:
        """What the next token becomes if it is whole characters and no mark; None for no one knows.

        Such tokens may be left out of `push`, as long as `skip_plain` is told of them, and they
        do not touch a stop string (`touches`). Places in the text are wrong afterwards.
        """
        is_within = self._detokenizer.is_within_character or not self._matcher.is_idle
        if is_within or self._is_counted or self._held or self._undecided:
            return None
        return ContentText if self._reader is None else self._reader.kind_of_text

    def skip_plain(self, num_tokens: int) -> None:
        """Count tokens that were left out."""
        self._num_tokens += num_tokens
        if self._thinking is not None:
            self._thinking.push_plain(num_tokens)

    @property
    def _has_ended(self) -> bool:
        """Whether nothing more is wanted, whatever the engine has to say."""
        return self._matcher.matched is not None or (
            self._reader is not None and self._reader.is_complete
        )

    def _push_token(self, output: RequestOutput, place: int, *, is_shown: bool) -> list[Event]:
        """Take in one token; returns what can be passed on now."""
        token_id = output.token_ids[place]
        text_offset, num_content_chars = self._num_decoded_chars, self._num_content_chars
        self._num_tokens += 1
        if self._thinking is not None:
            self._thinking.push(token_id)
        passed = self._read(token_id) if is_shown else []
        if self._rules.keeps_tokens:
            logprobs = None if output.logprobs is None else output.logprobs[place]
            end = self._num_decoded_chars + self._detokenizer.is_within_character
            token = TokenInText(token_id, text_offset, logprobs)
            self._held.append((end, token))
            if is_shown and token_id not in self._marks:
                token.content_offset = num_content_chars
                self._undecided.append(token)
            self._decide(num_content_chars)
        return passed

    def _decide(self, num_content_chars: int) -> None:
        """Which tokens are content, where that is known now; `num_content_chars`: before that."""
        if self._num_content_chars == num_content_chars:
            reader = self._reader
            if self._detokenizer.is_within_character or (reader and reader.may_hold_content):
                return
            for token in self._undecided:
                token.content_offset = None
        self._undecided.clear()

    def _read(self, token_id: int) -> list[Event]:
        mark = self._marks.get(token_id)
        if mark is None or self._reader is None:
            return list(self._pass_on(self._events_of(self._detokenizer.push(token_id))))
        events = list(self._pass_on(self._events_of(self._detokenizer.flush())))
        if not self._has_ended:
            events += self._pass_on(self._reader.push_mark(*mark))
        return events

    def _flush(self) -> list[Event]:
        """What is left at the end."""
        events: list[Event] = []
        num_content_chars = self._num_content_chars
        if not self._has_ended:
            events += self._pass_on(self._events_of(self._detokenizer.flush()))
        if not self._has_ended and self._reader is not None:
            events += self._pass_on(self._reader.finish())
        self._decide(num_content_chars)
        if held := self._matcher.flush():
            events.append(ContentText(held))
        return events

    def _events_of(self, characters: str) -> list[Event]:
        self._num_decoded_chars += len(characters)
        if self._reader is not None:
            return self._reader.push_text(characters)
        return [ContentText(characters)]

    def _pass_on(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events, with content up to where a stop string may begin."""
        for event in events:
            if isinstance(event, ContentText):
                text = event.text
                self._num_content_chars += len(text)
                if self._num_tokens > self._rules.min_tokens:
                    text = self._matcher.push(text)
                self._num_held_chars += len(event.text) - len(text)
                if text:
                    yield ContentText(text)
                if self._matcher.matched is not None:
                    return
            else:
                self._has_calls = self._has_calls or isinstance(event, CallBegin)
                yield event

    def _release(self, *, is_last: bool) -> list[TokenInText]:
        """The tokens whose text has been passed on; at the end, all."""
        num_passed = self._num_decoded_chars - self._num_held_chars
        if self._reader is not None:
            num_passed -= self._reader.num_held
        released = []
        while self._held and (is_last or self._held[0][0] <= num_passed):
            released.append(self._held.popleft()[1])
        return released

    def _stop_reason(self, output: RequestOutput) -> str | int | None:
        if self._has_ended:
            return self._matcher.matched
        is_named = output.stop_token_id in self._rules.stop_token_ids
        return output.stop_token_id if is_named else None
