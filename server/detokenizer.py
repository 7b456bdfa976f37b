"""Token ids to text, one token at a time."""

import codecs
from collections.abc import Callable

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Decodes tokens as they come; a character is passed on when its last byte has arrived.

    The pieces together are the decoding of the whole, bytes that are no UTF-8 becoming U+FFFD.
    A token costs the same wherever it stands in the text.

    Attributes:
        is_within_character: bytes of a character have come, but not the last.
    """

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        """`token_bytes`: what a token adds to the text (`Tokenizer.token_bytes`)."""
        self._token_bytes = token_bytes
        self._decoder = _new_decoder("replace")
        self.is_within_character = False

    def push(self, token_id: int) -> str:
        """The characters that this token completes."""
        data = self._token_bytes(token_id)
        if data.isascii() and not self.is_within_character:
            return data.decode("ascii")  # nearly always, and many times as fast
        characters = self._decoder.decode(data)
        self.is_within_character = bool(self._decoder.getstate()[0])
        return characters

    def flush(self) -> str:
        """U+FFFD if the text ends within a character, else nothing."""
        self.is_within_character = False
        return self._decoder.decode(b"", final=True)
