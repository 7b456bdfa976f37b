"""One request's place in its grammar."""

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher

from leadline.engine.grammar.messages import shortened
from leadline.engine.grammar.tokens import GrammarTokens, Words, ids_of


class GrammarMatcher:
    """Says which tokens may come next, takes tokens in, and can go back.

    End tokens are counted here and never shown to llguidance, which refuses them once its grammar
    can go no further; after one, nothing but end tokens may follow. A grammar that turns out to be
    too complex puts the matcher into error, for good: nothing is accepted, only end tokens are
    allowed, and the request should be ended with `error`.
    """

    def __init__(self, matcher: LLMatcher, tokens: GrammarTokens) -> None:
        """`matcher`: for this object alone, at the beginning of its grammar."""
        self._matcher = matcher
        self._tokens = tokens
        self._num_matched = 0
        self._num_ended = 0
        self._error = shortened(matcher.get_error()) if matcher.is_error() else None

    @property
    def error(self) -> str | None:
        """Why the matcher is of no more use, for the user; None while it is."""
        return self._error

    @property
    def is_finished(self) -> bool:
        """Whether the grammar is complete: nothing but end tokens may follow."""
        return self._error is None and (self._num_ended > 0 or self._matcher.is_stopped())

    def accept(self, token_ids: Sequence[int]) -> int:
        """Take tokens in while they are valid; returns how many were."""
        for index, token_id in enumerate(token_ids):
            if not self._accept(int(token_id)):
                return index
        return len(token_ids)

    def rollback(self, num_tokens: int) -> None:
        """Forget the last tokens that were accepted."""
        assert 0 <= num_tokens <= self._num_matched + self._num_ended, "more than were accepted"
        num_ends = min(num_tokens, self._num_ended)
        self._num_ended -= num_ends
        num_matched = num_tokens - num_ends
        self._num_matched -= num_matched
        if num_matched and self._error is None and not self._matcher.rollback(num_matched):
            self._fail()

    def fill_mask(self, row: Words) -> None:
        """Write which tokens may come next.

        Args:
            row: int32 [ceil(vocab_size / 32)]; bit i % 32 of word i // 32 is set if token i may
                come next. When the grammar is complete, or in error, only end tokens may.
        """
        tokens = self._tokens
        assert row.shape == tokens.known_words.shape
        row[:] = tokens.end_words
        if self._error is not None or self._num_ended:
            return
        words = np.zeros_like(tokens.known_words)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if self._matcher.is_error():
            self._fail()
            return
        np.bitwise_and(words, tokens.known_words, out=words)
        self._drop_refused(words)
        if words.any():
            row[:] = words
        else:
            self._error = "it allows no token of this model at this place"

    def _accept(self, token_id: int) -> bool:
        tokens = self._tokens
        if self._error is not None or not 0 <= token_id < tokens.num_known:
            return False
        is_end = token_id in tokens.end_ids
        if self._num_ended or (is_end and self._matcher.is_accepting()):
            self._num_ended += is_end
            return is_end
        num_accepted: int = self._matcher.try_consume_tokens([token_id])
        if self._matcher.is_error():
            self._fail()
            return False
        self._num_matched += num_accepted
        return num_accepted == 1

    def _drop_refused(self, words: Words) -> None:
        """Clear special tokens that would not be accepted: a negated class lets their bytes in."""
        special = words & self._tokens.special_words
        if not special.any():
            return
        ends = self._tokens.end_ids if self._matcher.is_accepting() else ()
        for token_id in ids_of(special).tolist():
            if token_id not in ends and self._matcher.validate_tokens([token_id]) != 1:
                words[token_id // 32] &= ~np.uint32(1 << (token_id % 32)).view(np.int32)

    def _fail(self) -> None:
        self._error = shortened(self._matcher.get_error())
