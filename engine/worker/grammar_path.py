"""A request's place in its grammar, which drafts may run ahead of."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from leadline.engine.errors import RequestError
from leadline.engine.request import Grammar

Words = npt.NDArray[np.int32]
"""One bit a token: bit i % 32 of word i // 32; of shape [ceil(vocab_size / 32)]."""


class Matcher(Protocol):
    """Follows a grammar (`leadline.engine.grammar.matcher.GrammarMatcher`)."""

    @property
    def error(self) -> str | None:
        """What ended the matcher, for good, or None."""
        ...

    def accept(self, token_ids: Sequence[int]) -> int:
        """Take tokens while they are valid; how many were."""
        ...

    def rollback(self, num_tokens: int) -> None:
        """Take back the last tokens."""
        ...

    def fill_mask(self, row: Words) -> None:
        """Write which tokens are allowed next."""
        ...


class Grammars(Protocol):
    """Compiled grammars (`leadline.engine.grammar.compiler.GrammarStore`)."""

    def matcher(self, grammar: Grammar) -> Matcher:
        """A new matcher at the beginning of the grammar.

        Raises:
            RequestError: there is none to be had.
        """
        ...


class GrammarPath:
    """A matcher that takes the output in, and runs ahead of it along drafts and back.

    A matcher that fails does so for good. One that has failed behind a draft, where the output may
    never come to, is replaced by a new one that takes the same output in.
    """

    def __init__(self, grammars: Grammars, grammar: Grammar) -> None:
        """At the beginning of a grammar that has been compiled."""
        self._grammars = grammars
        self._grammar = grammar
        self._taken: list[int] = []
        self._num_ahead = 0
        self._failure: str | None = None
        self._matcher = self._new_matcher()

    @property
    def error(self) -> str | None:
        """Why the request cannot go on after its output, for the user, or None."""
        return self._failure if self._matcher is None else self._matcher.error

    def take(self, token_id: int) -> None:
        """The output goes on with this token; no draft has been taken since `go_back`."""
        assert self._num_ahead == 0, "the matcher is ahead of the output"
        self._taken.append(token_id)
        if self._matcher is not None:
            self._matcher.accept([token_id])

    def take_draft(self, token_id: int) -> bool:
        """Go ahead; False, and no step ahead, if the token may not come here."""
        is_taken = self._matcher is not None and self._matcher.accept([token_id]) == 1
        self._num_ahead += is_taken
        return is_taken

    def allowed_words(self, num_words: int) -> tuple[Words, str | None]:
        """What may come here; nothing, and why, if the matcher has failed."""
        words = np.zeros(num_words, np.int32)
        if self._matcher is None:
            return words, self._failure
        self._matcher.fill_mask(words)
        if self._matcher.error is not None:
            words[:] = 0
        return words, self._matcher.error

    def go_back(self) -> None:
        """Back to the end of the output."""
        num_ahead, self._num_ahead = self._num_ahead, 0
        if self._matcher is None:
            return
        if self._matcher.error is None and num_ahead:
            self._matcher.rollback(num_ahead)
        if self._matcher.error is not None:
            self._matcher = self._new_matcher()
            if self._matcher is not None:
                for token_id in self._taken:
                    self._matcher.accept([token_id])

    def _new_matcher(self) -> Matcher | None:
        try:
            return self._grammars.matcher(self._grammar)
        except RequestError as error:
            self._failure = str(error)
            return None
