"""An event of a streamed answer, as much of it as is measured."""

from typing import Any

import msgspec

_MAX_ERROR_CHARS = 500


class AnswerError(Exception):
    """An answer that is none, by what the server says or leaves out."""


class Delta(msgspec.Struct):
    """What a chat has more of."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct):
    """A piece of an answer: `text` in completions, `delta` in chats."""

    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def new_text(self) -> str:
        """Its text; servers send reasoning under one name, or the same under both."""
        delta = self.delta or Delta()
        return self.text or delta.reasoning_content or delta.reasoning or delta.content or ""

    @property
    def has_tokens(self) -> bool:
        """Whether it has text, or is part of a call."""
        return bool(self.new_text or (self.delta and self.delta.tool_calls))


class Usage(msgspec.Struct):
    """Tokens so far."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Drafting(msgspec.Struct):
    """What drafts did for the answer."""

    num_spec_steps: int = 0
    num_draft_tokens: int = 0
    num_accepted_draft_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = []


class EventMetrics(msgspec.Struct):
    """Leadline's figures of the request."""

    speculative_decoding: Drafting | None = None


class Event(msgspec.Struct):
    """One event."""

    choices: list[Choice] = []
    usage: Usage | None = None
    metrics: EventMetrics | None = None


class _Failure(msgspec.Struct):
    """What an event or a refusal says of an error; the second form is the older one."""

    error: Any = None
    object: Any = None
    message: Any = None
    detail: Any = None

    def text(self) -> str | None:
        """The error; None if it tells of none."""
        if isinstance(self.error, dict) and self.error.get("message"):
            return str(self.error["message"])
        if self.error:
            return str(self.error)
        return str(self.message) if self.object == "error" else None


_EVENT = msgspec.json.Decoder(Event)
_FAILURE = msgspec.json.Decoder(_Failure)


def decode_event(data: bytes) -> Event:
    """An event from its JSON.

    Raises:
        AnswerError: it has another form, or tells of an error.
    """
    try:
        if b'"error"' in data and (text := _FAILURE.decode(data).text()) is not None:
            raise AnswerError(f"an error in the stream: {_short(text)}")
        return _EVENT.decode(data)
    except msgspec.MsgspecError as error:
        text = _short(data.decode(errors="replace"))
        raise AnswerError(f"an event has not OpenAI's form ({error}): {text}") from None


def refusal_text(status: int, body: bytes) -> str:
    """What is said of an answer with a status that is not of success."""
    text = body.decode(errors="replace")
    try:
        failure = _FAILURE.decode(body)
        text = str(failure.text() or failure.detail or failure.message or text)
    except msgspec.MsgspecError:
        pass  # the body itself says it
    return f"status {status}: {_short(text)}" if text.strip() else f"status {status}"


def _short(text: str) -> str:
    return text.strip()[:_MAX_ERROR_CHARS]
