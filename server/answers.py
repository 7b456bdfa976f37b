"""Collects a generation that is not streamed."""

from contextlib import aclosing
from dataclasses import dataclass, field

from leadline.engine.request import FinishReason as EngineFinishReason
from leadline.server.choice_text import TokenInText
from leadline.server.generation import Generation
from leadline.server.response_types import FinishReason


@dataclass(slots=True)
class Answer:
    """A whole choice.

    Attributes:
        tokens: those that count, if they are kept.
    """

    pieces: list[str] = field(default_factory=list)
    tokens: list[TokenInText] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    stop_reason: str | int | None = None

    @property
    def text(self) -> str:
        """The choice's text."""
        return "".join(self.pieces)

    @property
    def token_ids(self) -> list[int]:
        """The choice's tokens."""
        return [token.token_id for token in self.tokens]


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
            answer.tokens += delta.tokens
            if delta.finish_reason is not None:
                is_length = delta.finish_reason is EngineFinishReason.LENGTH
                answer.finish_reason = "length" if is_length else "stop"
                answer.stop_reason = delta.stop_reason
    return answers
