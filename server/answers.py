"""Answers that are not streamed: a generation is collected, and its body sent as a whole."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response

from leadline.engine.request import FinishReason as EngineFinishReason
from leadline.server.delta import Delta, TokenInText
from leadline.server.dialects.events import CallArguments, CallBegin, ReasoningText
from leadline.server.disconnect import run_until_disconnect
from leadline.server.generation import Generation
from leadline.server.response_types import FinishReason, ToolCall, ToolCallFunction

_FINISH_REASONS: dict[EngineFinishReason, FinishReason] = {
    EngineFinishReason.LENGTH: "length",
    EngineFinishReason.TOOL_CALLS: "tool_calls",
}


@dataclass(slots=True)
class Answer:
    """A whole choice.

    Attributes:
        pieces: of the content.
        reasoning_pieces: of the reasoning.
        calls: tool calls, in their order; the arguments of the last grow.
        tokens: those that count, if they are kept.
    """

    pieces: list[str] = field(default_factory=list)
    reasoning_pieces: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    tokens: list[TokenInText] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        """The choice's text; with reasoning or calls, its content."""
        return "".join(self.pieces)

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered."""
        return "".join(self.reasoning_pieces)

    @property
    def token_ids(self) -> list[int]:
        """The choice's tokens."""
        return [token.token_id for token in self.tokens]

    def add(self, delta: Delta) -> None:
        """Take in the next delta."""
        self.pieces.append(delta.text)
        self.tokens += delta.tokens
        for event in delta.events:
            match event:
                case ReasoningText(text):
                    self.reasoning_pieces.append(text)
                case CallBegin(_, call_id, name):
                    self.calls.append(ToolCall(id=call_id, function=ToolCallFunction(name=name)))
                case CallArguments(index, text):
                    self.calls[index].function.arguments += text
                case _:  # content, which is the delta's text
                    pass
        if delta.finish_reason is not None:
            self.finish_reason = _FINISH_REASONS.get(delta.finish_reason, "stop")
            self.stop_reason = delta.stop_reason


async def collect(generation: Generation) -> list[Answer]:
    """All choices, by index.

    Raises:
        ApiError: as `Generation.deltas`.
    """
    answers = [Answer() for _ in generation.requests]
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            answers[delta.index].add(delta)
    return answers


async def whole_answer(
    request: Request,
    generation: Generation,
    body: Callable[[Generation, list[Answer]], bytes],
    headers: Mapping[str, str],
) -> Response:
    """An answer that is not streamed; its body is written off the event loop where it is long.

    Raises:
        ApiError: as `collect`.
        ClientDisconnectedError: the client has left.
    """

    async def made() -> bytes:
        answers = await collect(generation)
        if generation.prompt_logprobs:  # as many as the prompts are long
            return await asyncio.to_thread(body, generation, answers)
        return body(generation, answers)

    content = await run_until_disconnect(request.receive, made())
    return Response(content, headers=headers, media_type="application/json")
