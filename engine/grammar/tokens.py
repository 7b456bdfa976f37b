"""A checkpoint's vocabulary, as grammars see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from llguidance import LLTokenizer

from leadline.loader.errors import TokenizerError
from leadline.loader.generation_config import read_generation_config
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

Words = npt.NDArray[np.int32]
"""One bit a token: bit i % 32 of word i // 32; of shape [ceil(vocab_size / 32)]."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GrammarTokens:
    """What every matcher of one model shares.

    Attributes:
        trie: llguidance's view of the vocabulary.
        num_known: one more than the tokenizer's highest id; the model may have further rows.
        end_ids: tokens that end the text.
        known_words: tokens that the tokenizer has; the model's further rows stand for nothing.
        special_words: tokens that are no text; llguidance may offer one that it then refuses.
        end_words: `end_ids`.
    """

    trie: LLTokenizer
    num_known: int
    end_ids: frozenset[int]
    known_words: Words
    special_words: Words
    end_words: Words


def make_tokens(tokenizer: Tokenizer, vocab_size: int, end_ids: Sequence[int]) -> GrammarTokens:
    """Prepare a vocabulary; of 129,280 tokens in about a second.

    Args:
        tokenizer: the checkpoint's.
        vocab_size: rows of the model's output.
        end_ids: those that the tokenizer does not have are left out.

    Raises:
        TokenizerError: the tokenizer has tokens that the model has not, no end token is left, or
            llguidance cannot read the tokenizer.
    """
    num_known = tokenizer.vocab_size
    if num_known > vocab_size:
        raise TokenizerError(
            f"the tokenizer has {num_known} tokens, more than the model's vocab_size, {vocab_size}"
        )
    ends = sorted({token_id for token_id in end_ids if 0 <= token_id < num_known})
    if not ends:
        raise TokenizerError(
            f"no end token of the model ({list(end_ids)}) is in its tokenizer; without one no "
            "grammar can end"
        )
    try:
        trie = LLTokenizer(tokenizer.to_json(), n_vocab=vocab_size, eos_token=ends)
    except ValueError as error:
        raise TokenizerError(
            f"the tokenizer cannot be used with grammars: {str(error)[:300]}"
        ) from error
    special = [token_id for token_id in range(num_known) if trie.is_special_token(token_id)]
    return GrammarTokens(
        trie=trie,
        num_known=num_known,
        end_ids=frozenset(ends),
        known_words=_words(vocab_size, range(num_known)),
        special_words=_words(vocab_size, [*special, *ends]),
        end_words=_words(vocab_size, ends),
    )


def read_tokens(directory: Path) -> GrammarTokens:
    """The vocabulary of a checkpoint.

    Raises:
        LoaderError: a file that is missing or cannot be used; or as `make_tokens`.
    """
    config = read_model_config(directory)
    tokenizer = Tokenizer.from_dir(directory)
    generation = read_generation_config(
        directory, other_eos_ids=(*config.eos_token_ids, tokenizer.eos_id)
    )
    return make_tokens(tokenizer, config.vocab_size, generation.eos_token_ids)


def ids_of(words: Words) -> npt.NDArray[np.intp]:
    """Ids whose bit is set, in order."""
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little"))


def _words(vocab_size: int, token_ids: Sequence[int]) -> Words:
    bits = np.zeros((vocab_size + 31) // 32 * 32, dtype=np.uint8)
    bits[list(token_ids)] = 1
    return np.packbits(bits, bitorder="little").view(np.int32)
