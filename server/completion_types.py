"""`POST /v1/completions`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from leadline.server.errors import invalid
from leadline.server.not_honoured import NOT_HONOURED, IsHarmless, only
from leadline.server.sampling_types import INT64_MAX, NumLogprobs, SamplingFields, TokenId

_TokenIds = Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """One text or several to be continued, as text or as token ids."""

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "prompt_embeds": only(),
        "top_logprobs": only(),
        "reasoning_effort": only("none"),
        "add_special_tokens": only(True),
    }

    prompt: (
        str
        | _TokenIds
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[_TokenIds], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    logprobs: NumLogprobs | None = None
    echo: bool | None = None

    @property
    def num_logprobs(self) -> int | None:
        """`logprobs`."""
        return self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        """`prompt_logprobs`; an echoed prompt has as many as the output."""
        return self.logprobs if self.prompt_logprobs is None and self.echo else self.prompt_logprobs

    @property
    def has_echo(self) -> bool:
        """`echo`."""
        return bool(self.echo)

    def check(self) -> list[str]:
        """As `SamplingFields.check`; an answer without tokens needs an echo."""
        unknown = super().check()
        if self.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "'max_tokens' is 0; allowed: at least 1, or 0 with 'echo'")
        return unknown

    def prompts(self) -> list[str | list[int]]:
        """The prompts, always as a list."""
        match self.prompt:
            case str():
                return [self.prompt]
            case [int(), *_]:
                return [[token_id for token_id in self.prompt if isinstance(token_id, int)]]
            case _:
                return [prompt for prompt in self.prompt if not isinstance(prompt, int)]
