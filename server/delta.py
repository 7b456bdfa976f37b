"""New text of one choice, with the tokens that it came from."""

from collections.abc import Sequence
from dataclasses import dataclass

from leadline.engine.request import FinishReason, SpeculationCounts, TokenLogprobs
from leadline.server.dialects.events import Event


@dataclass(slots=True)
class TokenInText:
    """A token and its place in the text.

    Attributes:
        text_offset: characters of the text that were complete before this token.
        logprobs: None if they were not asked for.
        content_offset: characters of the content that were there before this token; None if
            nothing of it is content, as of marks and of what ends the text.
    """

    token_id: int
    text_offset: int
    logprobs: TokenLogprobs | None
    content_offset: int | None = None


def moved(tokens: Sequence[TokenInText], num_chars: int) -> list[TokenInText]:
    """The tokens in a text that has so many more characters before them."""
    return [
        TokenInText(token.token_id, token.text_offset + num_chars, token.logprobs)
        for token in tokens
    ]


@dataclass(slots=True)
class Delta:
    """New text of one choice.

    Attributes:
        text: of the content.
        events: reasoning, content and calls in their order, where the choice is read as such.
        finish_reason: None until the last delta of the choice.
        num_tokens: tokens of the choice so far, all that count.
        num_cached_tokens: prompt tokens that were taken from the prefix cache.
        num_thinking_tokens: tokens of thinking so far.
        stop_reason: the stop string that ended the text, or the token if the request names it.
        tokens: those whose text has been passed on with this delta or before; the last delta has
            the rest. Empty unless they are kept.
        prompt_logprobs: once, if the engine was asked for them.
        speculation: with the finish reason, if the engine tells.
        is_draft: its tokens are accepted drafts, where outputs are split at these.
    """

    index: int
    text: str
    finish_reason: FinishReason | None
    num_tokens: int
    num_cached_tokens: int
    num_thinking_tokens: int = 0
    stop_reason: str | int | None = None
    events: Sequence[Event] = ()
    tokens: Sequence[TokenInText] = ()
    prompt_logprobs: list[TokenLogprobs] | None = None
    speculation: SpeculationCounts | None = None
    is_draft: bool = False
