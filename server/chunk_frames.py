"""Frames of a streamed completion: everything but the text is rendered once."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from leadline.server.body_writer import BodyWriter
from leadline.server.delta import Delta, TokenInText, moved
from leadline.server.dialects.events import (
    CallArguments,
    CallBegin,
    ContentText,
    Event,
    ReasoningText,
    TextKind,
)
from leadline.server.generation import Generation
from leadline.server.json_line import encode_line
from leadline.server.logprobs import LogprobWriter, rows_of
from leadline.server.plain_stream import PlainFrame, around_text, cut_at_text
from leadline.server.sampling_types import StreamOptions
from leadline.server.sse import DONE, EventStream

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class ChunkFormat:
    """What differs between chat and text chunks.

    Attributes:
        object: the chunk's `object`.
        role: the choice's part in its first chunk; empty if there is no such chunk.
        before_text, after_text: around the text in the choice's part.
        end: the choice's part in its last chunk.
        logprobs: tokens to the choice's `logprobs`, as JSON.
    """

    object: str
    role: bytes
    before_text: bytes
    after_text: bytes
    end: bytes
    logprobs: Callable[[LogprobWriter, Sequence[TokenInText]], bytes]


CHAT_FORMAT = ChunkFormat(
    object="chat.completion.chunk",
    role=b'"delta":{"role":"assistant","content":"","refusal":null}',
    before_text=b'"delta":{"content":',
    after_text=b"}",
    end=b'"delta":{}',
    logprobs=lambda writer, tokens: writer.chat_line(rows_of(tokens)),
)
TEXT_FORMAT = ChunkFormat(
    object="text_completion",
    role=b"",
    before_text=b'"text":',
    after_text=b"",
    end=b'"text":""',
    logprobs=lambda writer, tokens: encode_line(writer.text(tokens)),
)


class ChunkFrames:
    """Renders the chunks of one generation."""

    def __init__(
        self, generation: Generation, chunk_format: ChunkFormat, options: StreamOptions | None
    ) -> None:
        """`options`: the request's."""
        self._generation = generation
        self._format = chunk_format
        self._has_usage = options is not None and options.include_usage
        self._is_continuous = self._has_usage and options.continuous_usage_stats  # type: ignore[union-attr]
        head = {
            "id": generation.response_id,
            "object": chunk_format.object,
            "created": generation.created_s,
            "model": generation.model,
            "system_fingerprint": generation.state.fingerprint,
            "service_tier": "default",
        }
        self._head = b"data: " + _encode(head)[:-1]
        self._choice_heads = [
            self._head + b',"choices":[{"index":%d,' % index
            for index in range(len(generation.requests))
        ]
        self._null_usage = b',"usage":null' if self._has_usage else b""
        self._plain_tail = b',"logprobs":null,"finish_reason":null}]' + self._null_usage + b"}\n\n"
        self._seed = b',"seed":%d' % generation.seed
        self._is_plain = not (
            self._is_continuous
            or generation.parts.has_logprobs
            or generation.parts.has_token_ids
            or generation.parts.has_draft_flags
        )
        num_choices = len(generation.requests)
        self._choices = [_ChoiceStream() for _ in range(num_choices)]
        self._num_open = num_choices
        self._plain_frames: dict[TextKind, PlainFrame] = {}

    def take_writer(self, writer: BodyWriter) -> None:
        """Let frames of plain text be written to it; to be called before `frames` begins."""
        parts = self._generation.parts
        has_more = self._is_continuous or parts.has_token_ids or parts.has_draft_flags
        has_places = parts.has_logprobs and self._format is not CHAT_FORMAT
        if not has_more and not has_places:
            self._generation.plain_way = (self, writer)

    def plain_frame(self, kind: TextKind) -> PlainFrame | None:
        """See `PlainFrames`."""
        if self._choices[0].tokens:  # that are told with the next text
            return None
        if (frame := self._plain_frames.get(kind)) is None:
            head, part = self._choice_heads[0], self._part_of(kind(""))
            if self._generation.parts.has_logprobs:
                frame = self._frame_with_logprobs(head, part)
            else:
                frame = around_text(head, part, self._plain_tail)
            self._plain_frames[kind] = frame
        return frame

    def _frame_with_logprobs(self, head: bytes, part: bytes) -> PlainFrame:
        around = cut_at_text(head, part, b',"logprobs":')
        tail = b',"finish_reason":null}]' + self._null_usage + b"}\n\n"
        write = self._generation.writer.chat_line
        return lambda text, output: text.join(around) + write(output.logprobs or ()) + tail

    def role(self, index: int) -> bytes:
        """A choice's first chunk; the very first has the prompt's tokens, if they are asked for."""
        chunk = b""
        if index == 0 and self._generation.parts.has_token_ids:
            chunk = b',"prompt_token_ids":' + _encode(self._generation.prompt_ids_of(0))
        logprobs = b',"logprobs":null,"finish_reason":null}]'
        usage = self._usage(is_shown=self._is_continuous)
        head = self._choice_heads[index] + self._format.role + logprobs
        return head + chunk + usage + b"}\n\n"

    def text(
        self, index: int, text: str, tokens: Sequence[TokenInText], *, is_echo: bool = False
    ) -> bytes:
        """New text of a choice, and the tokens that are told with it."""
        return self._chunk(index, self._part_of(ContentText(text)), tokens, is_echo=is_echo)

    def event(self, index: int, event: Event, tokens: Sequence[TokenInText]) -> bytes:
        """New content, reasoning, or more of a tool call."""
        return self._chunk(index, self._part_of(event), tokens)

    def _part_of(self, event: Event) -> bytes:
        if isinstance(event, ContentText):
            return self._format.before_text + encode_line(event.text) + self._format.after_text
        has_functions = self._generation.parts.has_functions
        delta = _function_delta_of(event) if has_functions else _delta_of(event)
        return b'"delta":{' + delta + b"}"

    def _chunk(
        self, index: int, part: bytes, tokens: Sequence[TokenInText], *, is_echo: bool = False
    ) -> bytes:
        if self._is_plain:
            return self._choice_heads[index] + part + self._plain_tail
        details = self._details(index, tokens, is_echo=is_echo) + b',"finish_reason":null}]'
        usage = self._usage(is_shown=self._is_continuous)
        return self._choice_heads[index] + part + details + usage + b"}\n\n"

    def end(self, delta: Delta, tokens: Sequence[TokenInText]) -> bytes:
        """A choice's last chunk, with the tokens that are left."""
        assert delta.finish_reason is not None
        reason = b',"finish_reason":"%s"' % delta.finish_reason.value.encode()
        if self._generation.parts.has_functions:
            reason = reason.replace(b"tool_calls", b"function_call")
        stop = encode_line(delta.stop_reason)
        reason += b',"stop_reason":' + stop + b',"matched_stop":' + stop + b"}]"
        details = self._details(delta.index, tokens)
        usage = self._usage(is_shown=self._is_continuous)
        metrics = b"" if self._num_open else self._metrics()
        head = self._choice_heads[delta.index] + self._format.end
        return head + details + reason + usage + self._seed + metrics + b"}\n\n"

    def usage(self) -> bytes:
        """The stream's last chunk, which has no choices."""
        usage = self._usage(is_shown=True) + self._seed + self._metrics()
        return self._head + b',"choices":[]' + usage + b"}\n\n"

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The whole stream; the first chunk is that of choice 0.

        Raises:
            ApiError: as `Generation.deltas`.
        """
        has_begun = False
        async with aclosing(self._generation.deltas()) as deltas:
            async for delta in deltas:
                if not has_begun and self._format.role:
                    for index in range(len(self._choice_heads)):
                        yield self.role(index)
                has_begun = True
                for frame in self._frames_of(delta):
                    yield frame
        if self._has_usage:
            yield self.usage()
        yield DONE

    def _frames_of(self, delta: Delta) -> Iterator[bytes]:
        """The chunks of a delta: the echo before the first, the text or events, the end."""
        choice = self._choices[delta.index]
        if not choice.has_begun:
            choice.has_begun = True
            echo, tokens = self._generation.echo_of(delta.index)
            choice.num_echo_chars = len(echo)
            if echo or tokens:
                yield self.text(delta.index, echo, tokens, is_echo=True)
        if delta.tokens:
            choice.tokens += moved(delta.tokens, choice.num_echo_chars)
        choice.is_draft = delta.is_draft
        for event in delta.events:
            yield self.event(delta.index, event, choice.take_tokens())
        if delta.text and not delta.events:
            yield self.text(delta.index, delta.text, choice.take_tokens())
        if delta.finish_reason is not None:
            self._num_open -= 1
            yield self.end(delta, choice.take_tokens())

    def _details(
        self, index: int, tokens: Sequence[TokenInText], *, is_echo: bool = False
    ) -> bytes:
        """The choice's fields about tokens; those of the prompt are told once."""
        parts, choice = self._generation.parts, self._choices[index]
        logprobs = b"null"
        if parts.has_logprobs and tokens:
            logprobs = self._format.logprobs(self._generation.writer, tokens)
        details = b',"logprobs":' + logprobs
        if parts.has_draft_flags:
            details += b',"is_draft":true' if choice.is_draft else b',"is_draft":false'
        if parts.has_token_ids:
            ids = [] if is_echo else [token.token_id for token in tokens]
            details += b',"token_ids":' + _encode(ids)
            if not self._format.role and not choice.has_told_prompt:
                choice.has_told_prompt = True
                prompt_ids = self._generation.prompt_ids_of(index)
                details += b',"prompt_token_ids":' + _encode(prompt_ids)
        return details

    def _metrics(self) -> bytes:
        metrics = self._generation.usage.metrics()
        return b"" if metrics is None else b',"metrics":' + _encode(metrics)

    def _usage(self, *, is_shown: bool) -> bytes:
        if is_shown:
            return b',"usage":' + _encode(self._generation.usage.to_json())
        return self._null_usage


def chunk_stream(
    generation: Generation,
    chunk_format: ChunkFormat,
    options: StreamOptions | None,
    headers: Mapping[str, str],
) -> EventStream:
    """A generation as it comes; `options`: the request's."""
    frames = ChunkFrames(generation, chunk_format, options)
    return EventStream(
        frames.frames(),
        headers=headers,
        keep_alive_s=generation.state.keep_alive_s,
        offer_writer=frames.take_writer,
    )


def _delta_of(event: ReasoningText | CallBegin | CallArguments) -> bytes:
    """What a choice's `delta` has for an event; no null, as clients join what they find."""
    match event:
        case ReasoningText(text):
            encoded = encode_line(text)
            return b'"reasoning_content":' + encoded + b',"reasoning":' + encoded
        case CallBegin(index, call_id, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": call_id, "type": "function", "function": function}
            return b'"tool_calls":[' + encode_line(call) + b"]"
        case CallArguments(index, text):
            encoded = encode_line(text)
            return b'"tool_calls":[{"index":%d,"function":{"arguments":' % index + encoded + b"}}]"


def _function_delta_of(event: ReasoningText | CallBegin | CallArguments) -> bytes:
    """The same with calls in OpenAI's older form."""
    match event:
        case CallBegin(_, _, name):
            return b'"function_call":' + encode_line({"name": name, "arguments": ""})
        case CallArguments(_, text):
            return b'"function_call":' + encode_line({"arguments": text})
    return _delta_of(event)


@dataclass(slots=True)
class _ChoiceStream:
    """What is known of one choice between its deltas."""

    has_begun: bool = False
    has_told_prompt: bool = False
    num_echo_chars: int = 0
    is_draft: bool = False
    tokens: list[TokenInText] = field(default_factory=list)

    def take_tokens(self) -> list[TokenInText]:
        """The tokens that have not been told yet."""
        tokens, self.tokens = self.tokens, []
        return tokens
