"""Frames of a streamed completion: everything but the text is rendered once."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from leadline.server.generation import Generation
from leadline.server.sampling_types import StreamOptions
from leadline.server.sse import DONE

_encode = msgspec.json.Encoder().encode
# Some clients split a stream's lines where Unicode does; JSON leaves these as they are.
_LINE_ENDS = (
    ("\x85".encode(), b"\\u0085"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def encode_text(text: str) -> bytes:
    """A text as a JSON string that is one line, for whatever a client takes for a line."""
    encoded = _encode(text)
    if not text.isascii():
        for raw, escaped in _LINE_ENDS:
            encoded = encoded.replace(raw, escaped)
    return encoded


@dataclass(frozen=True, slots=True)
class ChunkFormat:
    """What differs between chat and text chunks.

    Attributes:
        object: the chunk's `object`.
        role: the choice's part in its first chunk; empty if there is no such chunk.
        before_text, after_text: around the text in the choice's part.
        end: the choice's part in its last chunk.
    """

    object: str
    role: bytes
    before_text: bytes
    after_text: bytes
    end: bytes


CHAT_FORMAT = ChunkFormat(
    object="chat.completion.chunk",
    role=b'"delta":{"role":"assistant","content":"","refusal":null}',
    before_text=b'"delta":{"content":',
    after_text=b"}",
    end=b'"delta":{}',
)
TEXT_FORMAT = ChunkFormat(
    object="text_completion", role=b"", before_text=b'"text":', after_text=b"", end=b'"text":""'
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
        }
        self._head = b"data: " + _encode(head)[:-1]
        self._choice_heads = [
            self._head + b',"choices":[{"index":%d,' % index
            for index in range(len(generation.requests))
        ]
        null_usage = b',"usage":null' if self._has_usage else b""
        self._tail = b',"logprobs":null,"finish_reason":null}]' + null_usage + b"}\n\n"
        self._seed = b',"seed":%d' % generation.seed

    def role(self, index: int) -> bytes:
        """A choice's first chunk."""
        return self._choice_heads[index] + self._format.role + self._open_tail()

    def text(self, index: int, text: str) -> bytes:
        """New text of a choice."""
        part = self._format.before_text + encode_text(text) + self._format.after_text
        return self._choice_heads[index] + part + self._open_tail()

    def end(self, index: int, finish_reason: str) -> bytes:
        """A choice's last chunk."""
        tail = b',"logprobs":null,"finish_reason":"%s"}]' % finish_reason.encode()
        usage = self._usage(is_shown=self._is_continuous)
        return self._choice_heads[index] + self._format.end + tail + usage + self._seed + b"}\n\n"

    def usage(self) -> bytes:
        """The stream's last chunk, which has no choices."""
        return self._head + b',"choices":[]' + self._usage(is_shown=True) + self._seed + b"}\n\n"

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
                if delta.text:
                    yield self.text(delta.index, delta.text)
                if delta.finish_reason is not None:
                    yield self.end(delta.index, delta.finish_reason.value)
        if self._has_usage:
            yield self.usage()
        yield DONE

    def _open_tail(self) -> bytes:
        if not self._is_continuous:
            return self._tail
        tail = b',"logprobs":null,"finish_reason":null}]'
        return tail + self._usage(is_shown=True) + b"}\n\n"

    def _usage(self, *, is_shown: bool) -> bytes:
        if is_shown:
            return b',"usage":' + _encode(self._generation.usage.to_json())
        return b',"usage":null' if self._has_usage else b""
