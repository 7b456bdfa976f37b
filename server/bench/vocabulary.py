"""What random prompts are made of: token ids that the model has, or words of known length."""

from dataclasses import dataclass

import numpy as np

_NUM_WORDS = 2000
_LETTERS = np.array(list("etaoinshrdlucmfwypvbgk"))
_WORD_LETTERS = (2, 9)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What prompts are drawn from.

    Attributes:
        words: made up; a text of n tokens has about `n / tokens_per_word` of them.
        tokens_per_word: by the server's own count, or 1 if it does not tell.
        token_ids: of the words; None if the server does not tell.
    """

    words: tuple[str, ...]
    tokens_per_word: float = 1.0
    token_ids: tuple[int, ...] | None = None

    def ids(self, num_tokens: int, rng: np.random.Generator) -> list[int]:
        """That many token ids; the vocabulary must have some."""
        ids = np.array(self.token_ids)
        return [int(token_id) for token_id in rng.choice(ids, num_tokens)]

    def text(self, num_tokens: int, rng: np.random.Generator) -> str:
        """A text of about that many tokens."""
        num_words = max(round(num_tokens / self.tokens_per_word), 1)
        return " ".join(str(word) for word in rng.choice(self.words, num_words))


def made_up_words(seed: int) -> tuple[str, ...]:
    """Words of random letters: their pieces are spread over all of a vocabulary."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(*_WORD_LETTERS, _NUM_WORDS)
    return tuple("".join(rng.choice(_LETTERS, length)) for length in lengths)
