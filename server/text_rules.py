"""Where a text ends, and what is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRules:
    """Those of one choice, as its request asks.

    Attributes:
        stop_strings: end the text.
        stop_token_ids: those of the request.
        min_tokens: stop strings are looked for in the text that comes after so many tokens.
        includes_stop: what ends the text is part of it.
        keeps_tokens: deltas have tokens.
    """

    stop_strings: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    min_tokens: int = 0
    includes_stop: bool = False
    keeps_tokens: bool = False
