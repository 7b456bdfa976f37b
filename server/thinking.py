"""How long a model may think before it answers, and how long it did."""

from collections.abc import Sequence
from typing import Literal

from leadline.engine.request import ThinkingLimit
from leadline.loader.tokenizer import Tokenizer
from leadline.server.errors import BadRequestError

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
EFFORT_BUDGETS: dict[Effort, int | None] = {
    "none": 0,
    "minimal": 512,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": None,
    "max": None,
    "ultra": None,
}
"""Most tokens of thinking for each `reasoning_effort`; None for as many as the model likes."""

ANSWER_SHARE = 4
"""One token in so many of `max_tokens` is kept for the answer, whatever the budget."""
_MIN_ANSWER_TOKENS = 2  # the token that ends thinking, and one of the answer


def find_thinking_tokens(tokenizer: Tokenizer) -> ThinkingLimit | None:
    """The tokens `<think>` and `</think>`, without a limit; None if they are no single tokens."""
    begin_ids, end_ids = tokenizer.encode("<think>"), tokenizer.encode("</think>")
    if len(begin_ids) != 1 or len(end_ids) != 1:
        return None
    return ThinkingLimit(begin_id=begin_ids[0], end_id=end_ids[0])


def limit_thinking(
    tokens: ThinkingLimit | None, budget: int | None, max_tokens: int, *, param: str | None
) -> ThinkingLimit | None:
    """The limit of a request, which always leaves room for an answer.

    Args:
        tokens: the model's, or None if it has none.
        budget: what the request asks for; None for no limit.
        max_tokens: of the request.
        param: the field that asks, or None if none does.

    Raises:
        BadRequestError: a limit for a model whose thinking is not marked.
    """
    if param is not None and tokens is None:
        if param in ("reasoning_effort", "thinking") and budget == 0:
            return None  # it never thinks
        raise BadRequestError(
            f"'{param}' needs a model whose tokenizer has <think> and </think> as single tokens; "
            "leave it out",
            param=param,
            code="unsupported_parameter",
        )
    if budget is None or tokens is None:
        return tokens
    num_kept = max(-(-max_tokens // ANSWER_SHARE), _MIN_ANSWER_TOKENS)
    return ThinkingLimit(
        begin_id=tokens.begin_id,
        end_id=tokens.end_id,
        budget=max(0, min(budget, max_tokens - num_kept)),
    )


class ThinkingCounter:
    """Counts a choice's tokens between the two tokens that mark thinking.

    Attributes:
        num_tokens: of thinking so far; the marks are none of them.
    """

    __slots__ = ("_begin_id", "_end_id", "_is_thinking", "num_tokens")

    def __init__(self, tokens: ThinkingLimit, prompt_ids: Sequence[int]) -> None:
        """A prompt may end within thinking: its last mark says whether it does."""
        self.num_tokens = 0
        self._begin_id = tokens.begin_id
        self._end_id = tokens.end_id
        marks = (tokens.begin_id, tokens.end_id)
        last = next((token_id for token_id in reversed(prompt_ids) if token_id in marks), None)
        self._is_thinking = last == tokens.begin_id

    def push(self, token_id: int) -> None:
        """Take in the next token."""
        if token_id == self._begin_id:
            self._is_thinking = True
        elif token_id == self._end_id:
            self._is_thinking = False
        elif self._is_thinking:
            self.num_tokens += 1

    def push_plain(self, num_tokens: int) -> None:
        """Take in so many tokens, none of them a mark."""
        if self._is_thinking:
            self.num_tokens += num_tokens
