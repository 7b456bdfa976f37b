"""Whether the model thinks, and for how long it has."""

from collections.abc import Sequence
from dataclasses import dataclass

from leadline.engine.request import ThinkingLimit


@dataclass(slots=True)
class Thinking:
    """Follows a text token by token.

    Attributes:
        is_open: thinking has begun and has not ended.
        num_tokens: tokens since it began.
    """

    limit: ThinkingLimit
    is_open: bool = False
    num_tokens: int = 0

    @classmethod
    def after(cls, limit: ThinkingLimit, token_ids: Sequence[int]) -> "Thinking":
        """The state at the end of a text."""
        thinking = cls(limit)
        for back, token_id in enumerate(reversed(token_ids)):
            if token_id == limit.end_id:
                break
            if token_id == limit.begin_id:
                thinking.is_open, thinking.num_tokens = True, back
                # An earlier mark of the same kind, with no end between, began it.
        return thinking

    def copy(self) -> "Thinking":
        """The same state, to be led along a path of drafts."""
        return Thinking(self.limit, self.is_open, self.num_tokens)

    def take(self, token_id: int) -> None:
        """The text goes on with this token."""
        if not self.is_open:
            self.is_open, self.num_tokens = token_id == self.limit.begin_id, 0
        elif token_id == self.limit.end_id:
            self.is_open = False
        else:
            self.num_tokens += 1

    @property
    def forced_id(self) -> int | None:
        """The token that has to come next, if the budget is used up."""
        budget = self.limit.budget
        if self.is_open and budget is not None and self.num_tokens >= budget:
            return self.limit.end_id
        return None
