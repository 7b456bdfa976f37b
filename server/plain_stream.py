"""The short way of most tokens: from the engine's output to the connection in one call."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from leadline.engine.request import EngineRequest, RequestOutput
from leadline.server.body_writer import BodyWriter
from leadline.server.choice_text import ChoiceText
from leadline.server.dialects.events import TextKind
from leadline.server.engine_protocol import Engine
from leadline.server.json_line import encode_line
from leadline.server.request_metrics import RequestMetrics
from leadline.server.request_record import ChoiceRecord
from leadline.server.stop_strings import touches

PlainFrame = Callable[[bytes, RequestOutput], bytes]
"""The next frame, from an output and its text as JSON has it; each frame that it makes is sent."""


class PlainFrames(Protocol):
    """Knows the frames of text without its neighbours."""

    def plain_frame(self, kind: TextKind) -> PlainFrame | None:
        """Renders the frames of text that come next; None if such text may bring more."""
        ...


def cut_at_text(before: bytes, part: bytes, after: bytes) -> tuple[bytes, ...]:
    """The pieces of a frame between which its text stands; `part` has it as empty strings."""
    marked = part.replace(b'""', b'"\0"')  # a byte that no JSON has
    return tuple((before + marked + after).split(b"\0"))


def around_text(before: bytes, part: bytes, after: bytes) -> PlainFrame:
    """A frame that is the same but for its text; as `cut_at_text`."""
    around = cut_at_text(before, part, after)
    return lambda text, output: text.join(around)


class PlainStream:
    """Follows one choice while its reader waits for outputs that bring more than text.

    What it takes is what `ChoiceText.push` and the frames would have made of it, byte for byte.
    """

    __slots__ = (
        *("_choice", "_frame", "_frames", "_last_s", "_metrics", "_num_tokens"),
        *("_stops", "_text", "_texts", "_watched", "_writer"),
    )

    def __init__(
        self,
        text: ChoiceText,
        choice: ChoiceRecord,
        frames: PlainFrames,
        writer: BodyWriter,
        texts: Mapping[int, bytes | None],
        metrics: RequestMetrics,
        stops: Sequence[str],
    ) -> None:
        """`texts`: see `PlainTexts`; `stops` may end the text; the others are the choice's own."""
        self._text = text
        self._choice = choice
        self._frames = frames
        self._texts = texts
        self._metrics = metrics
        self._writer = writer
        self._frame: PlainFrame | None = None
        self._stops = stops
        self._watched = [encode_line(first)[1:-1] for first in {stop[0] for stop in stops}]
        self._num_tokens = 0
        self._last_s = 0.0

    async def outputs(
        self, engine: Engine, request: EngineRequest
    ) -> AsyncGenerator[RequestOutput, None]:
        """Submit a request and yield its outputs, but for those whose text is sent at once.

        Raises:
            EngineError: as `Engine.generate`.
        """
        try:
            async with aclosing(engine.generate(request, self._push)) as outputs:
                async for output in outputs:
                    self._settle()
                    yield output  # and wait until it has been told
                    self._go_on()
        finally:
            self._settle()

    def _push(self, outputs: Sequence[RequestOutput]) -> int:
        """Send outputs' text at once, up to the first that may bring more; returns how many.

        None of them while the client has much left to read.
        """
        frame = self._frame
        if frame is None or not self._writer.is_free:
            return 0
        frames, num_tokens = [], 0
        for output in outputs:
            if (text := self._text_of(output)) is None:
                break
            frames.append(frame(text, output))
            num_tokens += len(output.token_ids)
        if frames:
            self._writer.write_now(frames[0] if len(frames) == 1 else b"".join(frames))
            now_s = time.monotonic()
            self._metrics.on_more_tokens(num_tokens, now_s - self._last_s)
            self._num_tokens += num_tokens
            self._last_s = now_s
        return len(frames)

    def _text_of(self, output: RequestOutput) -> bytes | None:
        """An output's text, as JSON has it; None if it may bring more, or brings none."""
        if output.finish_reason is not None:
            return None
        texts, text = self._texts, b""
        for token_id in output.token_ids:
            if (plain := texts[token_id]) is None:
                return None
            text += plain
        for watched in self._watched:
            if watched in text and touches(msgspec.json.decode(b'"%b"' % text), self._stops):
                return None
        return text or None

    def _settle(self) -> None:
        """Let the choice's text and record know what has been sent; the next output is theirs."""
        self._frame = None
        if self._num_tokens:
            self._text.skip_plain(self._num_tokens)
            self._choice.num_tokens += self._num_tokens
            self._choice.last_token_s = self._last_s
            self._num_tokens = 0

    def _go_on(self) -> None:
        """Take what comes after an output that the choice's text and the frames have taken in."""
        kind = self._text.plain_kind
        if kind is not None and self._choice.last_token_s is not None:
            self._last_s = self._choice.last_token_s
            self._frame = self._frames.plain_frame(kind)
