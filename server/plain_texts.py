"""The texts of tokens as JSON has them, of those that are text and nothing else."""

from collections.abc import Container

from leadline.loader.tokenizer import Tokenizer
from leadline.server.json_line import encode_line


class PlainTexts(dict[int, bytes | None]):
    """By token id: what stands between the quotes; None for a token that needs a closer look.

    That is one that may be a mark, that adds nothing, or that holds a part of a character. Entries
    are made when they are first asked for. Those of several tokens, one after the other, are their
    text together.
    """

    def __init__(self, tokenizer: Tokenizer, marks: Container[int]) -> None:
        """`marks`: the tokens that may be marks."""
        super().__init__()
        self._tokenizer = tokenizer
        self._marks = marks

    def __missing__(self, token_id: int) -> bytes | None:
        self[token_id] = plain = self._plain(token_id)
        return plain

    def _plain(self, token_id: int) -> bytes | None:
        if token_id in self._marks or token_id in self._tokenizer.special_ids:
            return None
        try:
            text = self._tokenizer.token_bytes(token_id).decode()
        except UnicodeDecodeError:
            return None
        return encode_line(text)[1:-1] or None
