"""A request as the simulated executor knows it."""

from dataclasses import dataclass, field

from leadline.engine.request import SamplingParams


@dataclass(slots=True)
class HeldText:
    """A request as the executor knows it.

    Attributes:
        prefix_hashes: the i-th names the tokens 0..i.
        end: position after the last token computed, right or wrong.
    """

    params: SamplingParams
    token_ids: list[int]
    prefix_hashes: list[int]
    num_prompt_tokens: int = 0
    num_computed_tokens: int | None = None
    end: int = 0
    is_over: bool = False
    draft_ids: list[int] = field(default_factory=list)
    page_ids: list[int] = field(default_factory=list)

    def cut(self, token_ids: list[int]) -> list[int]:
        """The tokens up to the one that ends the request."""
        for count, token_id in enumerate(token_ids, 1):
            num_output_tokens = len(self.token_ids) + count - self.num_prompt_tokens
            if self.params.ends_text(token_id) or num_output_tokens == self.params.max_tokens:
                self.is_over = True
                return token_ids[:count]
        return token_ids
