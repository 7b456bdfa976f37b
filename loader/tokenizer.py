"""Text to token ids and back, from the files of a checkpoint."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders

from leadline.loader.byte_alphabet import BYTE_OF_CHARACTER
from leadline.loader.errors import TokenizerError
from leadline.loader.file_faults import fault_of
from leadline.loader.json_files import read_json_object
from leadline.loader.kimi_tokenizer import read_kimi_tokenizer


class Tokenizer:
    """A byte-level BPE tokenizer with its special tokens.

    Attributes:
        special_tokens: `bos_token`, `eos_token` and the like, as tokenizer_config.json names them;
            templates are given them.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        """Wrap a tokenizer.

        Args:
            backend: its decoder must be byte-level, as in every model of the family.
            config: the content of tokenizer_config.json; empty if there is none.

        Raises:
            TokenizerError: the tokenizer is of another kind.
        """
        if not isinstance(backend.decoder, decoders.ByteLevel):
            kind = type(backend.decoder).__name__
            raise TokenizerError(
                f"the tokenizer's decoder is {kind}; only ByteLevel, the family's own, is supported"
            )
        self._backend = backend
        self._config = config
        self.special_tokens = special_tokens(config)

    @classmethod
    def from_dir(cls, directory: Path) -> "Tokenizer":
        """The tokenizer of a checkpoint: `tokenizer.json`, or Kimi's `tiktoken.model`.

        Raises:
            TokenizerError: neither is there, or one cannot be read.
        """
        config_path = directory / "tokenizer_config.json"
        config = read_json_object(config_path, TokenizerError) if config_path.exists() else {}
        path, kimi_path = directory / "tokenizer.json", directory / "tiktoken.model"
        if path.exists():
            return cls(_read_backend(path), config)
        if kimi_path.exists():
            return cls(read_kimi_tokenizer(kimi_path, config), config)
        raise TokenizerError(
            f"no tokenizer in {directory}; expected tokenizer.json, or tiktoken.model (Kimi-K2)"
        )

    @cached_property
    def vocab_size(self) -> int:
        """One more than the highest token id."""
        return len(self._bytes_by_id)

    def to_json(self) -> str:
        """The whole tokenizer as `tokenizer.json` has it."""
        return str(self._backend.to_str())

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text, such as the end of a sentence."""
        added = self._backend.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-sentence token."""
        return self._id_of("bos_token")

    @property
    def eos_id(self) -> int | None:
        """The end-of-sentence token."""
        return self._id_of("eos_token")

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """What belongs before a plain prompt: the BOS token or nothing, as the checkpoint has it.

        A chat template writes it itself.
        """
        adds_bos = self._config.get("add_bos_token")
        if adds_bos is None:
            return tuple(self._backend.encode("", add_special_tokens=True).ids)
        return (self.bos_id,) if adds_bos and self.bos_id is not None else ()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens written in it are recognised, none is added."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD."""
        table = self._bytes_by_id
        data = bytearray()
        for token_id in token_ids:
            if 0 <= token_id < len(table) and not (
                skip_special_tokens and token_id in self.special_ids
            ):
                data += table[token_id]
        return data.decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to the text, as UTF-8; nothing for a special token.

        Models have rows beyond their tokenizer's last token: those add nothing either.
        """
        table = self._text_by_id
        return table[token_id] if 0 <= token_id < len(table) else b""

    def _id_of(self, name: str) -> int | None:
        token = self.special_tokens.get(name)
        token_id: int | None = None if token is None else self._backend.token_to_id(token)
        return token_id

    @cached_property
    def _bytes_by_id(self) -> list[bytes]:
        added = self._backend.get_added_tokens_decoder()
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        table = [b""] * (max(vocabulary.values(), default=-1) + 1)
        for text, token_id in vocabulary.items():
            if token_id in added or not BYTE_OF_CHARACTER.keys() >= set(text):
                table[token_id] = text.encode()  # written as it is
            else:
                table[token_id] = bytes(BYTE_OF_CHARACTER[character] for character in text)
        return table

    @cached_property
    def _text_by_id(self) -> list[bytes]:
        special = self.special_ids
        return [b"" if i in special else data for i, data in enumerate(self._bytes_by_id)]


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """The named special tokens of a tokenizer_config.json, by name (`bos_token` and the like)."""
    found = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"):
        token = config.get(name)
        if isinstance(token, dict):  # an AddedToken, written out
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        fault = fault_of(path) or f"cannot be read: {error}; fetch it again"
        raise TokenizerError(f"{path} {fault}") from error
