"""`POST /v1/completions`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from leadline.server.sampling_types import (
    NOT_HONOURED,
    IsHarmless,
    SamplingFields,
    TokenId,
    only,
)

MAX_PROMPTS = 256
_TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """One text or several to be continued, as text or as token ids."""

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "logprobs": only(),
        "add_special_tokens": only(True),
    }

    prompt: (
        str
        | _TokenIds
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )

    def prompts(self) -> list[str | list[int]]:
        """The prompts, always as a list."""
        match self.prompt:
            case str():
                return [self.prompt]
            case [int(), *_]:
                return [[token_id for token_id in self.prompt if isinstance(token_id, int)]]
            case _:
                return [prompt for prompt in self.prompt if not isinstance(prompt, int)]
