"""Collects a generation that is not streamed."""

from contextlib import aclosing
from dataclasses import dataclass, field

from leadline.engine.request import FinishReason as EngineFinishReason
from leadline.server.generation import Generation
from leadline.server.response_types import FinishReason


@dataclass(slots=True)
class Answer:
    """A whole choice."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason = "stop"

    @property
    def text(self) -> str:
        """The choice's text."""
        return "".join(self.pieces)


async def collect(generation: Generation) -> list[Answer]:
    """All choices, by index.

    Raises:
        ApiError: as `Generation.deltas`.
    """
    answers = [Answer() for _ in generation.requests]
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            answer = answers[delta.index]
            answer.pieces.append(delta.text)
            if delta.finish_reason is not None:
                is_length = delta.finish_reason is EngineFinishReason.LENGTH
                answer.finish_reason = "length" if is_length else "stop"
    return answers
