"""What an answer tells beside its text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerParts:
    """What an answer tells beside its text, as its request asks.

    Attributes:
        has_text: tokens become text at all.
        has_logprobs: of the output's tokens.
        has_prompt_logprobs: in a field of their own.
        has_token_ids: of prompt and output.
        has_draft_flags: whether its text is an accepted draft, with every chunk.
        has_special_tokens: they are part of the text.
        hides_reasoning: what the model thinks is left out.
        has_functions: calls are told in OpenAI's older form.
        is_scoring: the engine's one token is dropped; the prompt alone is looked at.
    """

    has_text: bool = True
    has_logprobs: bool = False
    has_prompt_logprobs: bool = False
    has_token_ids: bool = False
    has_draft_flags: bool = False
    has_special_tokens: bool = False
    hides_reasoning: bool = False
    has_functions: bool = False
    is_scoring: bool = False

    @property
    def are_as_they_come(self) -> bool:
        """Whether deltas are told as they are: none is cut, or has anything left out."""
        return not (self.has_draft_flags or self.hides_reasoning or self.is_scoring)
