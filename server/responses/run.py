"""Makes a response from a generation: event by event, or whole."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from leadline.engine.request import RequestOutput
from leadline.server.body_writer import BodyWriter
from leadline.server.dialects.events import TextKind
from leadline.server.errors import ApiError
from leadline.server.generation import Generation
from leadline.server.plain_stream import PlainFrame
from leadline.server.responses import response as responses
from leadline.server.responses.event_log import error_fields, event_frame
from leadline.server.responses.field_names import renamed
from leadline.server.responses.output import OutputEvent, OutputWriter
from leadline.server.responses.records import RUNNING
from leadline.server.responses.response import Response

OnEnd = Callable[[Response], Awaitable[None]]


class ResponseRun:
    """One response while it is made.

    Attributes:
        response: as it stands.
    """

    def __init__(
        self, response: Response, generation: Generation, on_end: OnEnd | None = None
    ) -> None:
        """`on_end`: called with the response once it has ended or failed, before that is told."""
        self.response = response
        self._generation = generation
        self._on_end = on_end
        logprobs = generation.writer if generation.parts.has_logprobs else None
        self._writer = OutputWriter(response.id, logprobs)
        self._number = 0  # of the next event

    async def whole(self) -> Response:
        """The response after its end.

        Raises:
            ApiError: as `Generation.deltas`.
        """
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        return self.response

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """The whole stream; its first frame comes with the first delta.

        Raises:
            ApiError: as `Generation.deltas`.
        """
        async with aclosing(self.events()) as events:
            async for event, fields in events:
                yield self.frame(event, fields)

    def take_writer(self, writer: BodyWriter) -> None:
        """Let frames of plain text be written to it; to be called before `frames` begins."""
        self._generation.plain_way = (self, writer)

    def plain_frame(self, kind: TextKind) -> PlainFrame | None:
        """See `PlainFrames`; the frames have numbers."""
        if (event := self._writer.plain_event(kind)) is None:
            return None
        name, fields = event
        whole = event_frame(name, 0, fields)
        before, _, rest = whole.partition(b'"sequence_number":0,')
        before += b'"sequence_number":'
        middle, _, after = rest.rpartition(b'"delta":""')
        middle, after = b"," + middle + b'"delta":"', b'"' + after

        def frame(text: bytes, output: RequestOutput) -> bytes:
            self._writer.add_plain(msgspec.json.decode(b'"%b"' % text))
            number = self._number
            self._number += 1
            return b"%b%d%b%b%b" % (before, number, middle, text, after)

        return frame

    def cancel(self) -> None:
        """Say that no more is wanted of the answer, unless it has ended."""
        self._writer.close()
        self.response.output = self._writer.items
        if self.response.status in RUNNING:
            self.response.status = "cancelled"

    def failure(self, error: ApiError) -> bytes:
        """The last frames of a stream that breaks off."""
        failed = self.frame("response.failed", {"response": self.response})
        return failed + self.frame("error", error_fields(error))

    def frame(self, event: str, fields: dict[str, Any]) -> bytes:
        """The next event as it is sent."""
        frame = event_frame(event, self._number, fields)
        self._number += 1
        return frame

    async def events(self) -> AsyncGenerator[OutputEvent, None]:
        """What happens, as it does; the first event comes with the first delta.

        Raises:
            ApiError: as `Generation.deltas`.
        """
        response, has_begun = self.response, False
        try:
            async with aclosing(self._generation.deltas()) as deltas:
                async for delta in deltas:
                    if not has_begun:
                        has_begun = True
                        yield "response.created", {"response": response}
                        yield "response.in_progress", {"response": response}
                    for event in self._writer.push(delta):
                        yield event
                    if delta.finish_reason is not None:
                        responses.end(response, delta, self._generation)
        except ApiError as error:
            if has_begun:
                self._writer.close()
                responses.fail(response, error)
                await self._finish()
            raise renamed(error) from error
        await self._finish()
        yield f"response.{response.status}", {"response": response}

    async def _finish(self) -> None:
        self.response.output = self._writer.items
        if self._on_end is not None:
            await self._on_end(self.response)
