"""Kimi-K2's tokenizer, which ships as a tiktoken rank file, as a `tokenizers` one.

No code of the checkpoint is run: the pattern below and the reserved tokens are the family's.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from leadline.loader.byte_alphabet import CHARACTER_OF_BYTE
from leadline.loader.errors import TokenizerError

NUM_RESERVED_TOKENS = 256
_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_NOT_HAN = r"&&[^\p{Han}]"
_UPPER = rf"[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}{_NOT_HAN}]"
_LOWER = rf"[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}{_NOT_HAN}]"
_WORD_START = r"[^\r\n\p{L}\p{N}]?"
PATTERN = "|".join(
    (
        r"[\p{Han}]+",
        f"{_WORD_START}{_UPPER}*{_LOWER}+{_CONTRACTION}",
        f"{_WORD_START}{_UPPER}+{_LOWER}*{_CONTRACTION}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def read_kimi_tokenizer(path: Path, config: dict[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a `tiktoken.model` file.

    Args:
        path: lines of a token in base64, a space, and its rank, which is its id.
        config: tokenizer_config.json, whose `added_tokens_decoder` names the special tokens.

    Raises:
        TokenizerError: the file or the special tokens are malformed.
    """
    ranks = read_ranks(path)
    names = {data: "".join(CHARACTER_OF_BYTE[byte] for byte in data) for data in ranks}
    vocabulary = {names[data]: rank for data, rank in ranks.items()}
    merges = [(names[left], names[right]) for left, right in merges_of(ranks)]
    # tiktoken looks a whole piece up before it merges: `ignore_merges`.
    model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token_id, token in _added_tokens(len(ranks), config).items():
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != token_id:
            raise TokenizerError(
                f"{path.parent / 'tokenizer_config.json'}: the special token {token.content!r} "
                f"has the id {token_id}, which it cannot have after {len(ranks)} ranks"
            )
    return tokenizer


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token bytes -> rank, in rank order.

    Raises:
        TokenizerError: a line is malformed, ranks have gaps, or a single byte has no token.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line:
            continue
        fields = line.split()
        try:
            data, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except (IndexError, ValueError, binascii.Error):
            raise TokenizerError(
                f"{path}, line {number}: {line[:40]!r} is not a token in base64 and its rank"
            ) from None
        if rank != len(ranks) or data in ranks:
            raise TokenizerError(
                f"{path}, line {number}: rank {rank}; expected a new token of rank {len(ranks)}"
            )
        ranks[data] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing:
        raise TokenizerError(f"{path} lacks single bytes: {missing}")
    return ranks


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merges of a rank file, first to be applied first.

    tiktoken merges any two neighbours whose concatenation has a rank, lowest rank first; so every
    cut of a token into two tokens is a merge, at the token's rank.
    """
    merges = []
    for data in sorted(ranks, key=ranks.__getitem__):
        cuts = [(data[:i], data[i:]) for i in range(1, len(data))]
        known = [cut for cut in cuts if cut[0] in ranks and cut[1] in ranks]
        merges += sorted(known, key=lambda cut: (ranks[cut[0]], ranks[cut[1]]))
    return merges


def _added_tokens(num_ranks: int, config: dict[str, Any]) -> dict[int, AddedToken]:
    """Id -> token: those that the config names, and reserved ones around them."""
    tokens = {
        token_id: AddedToken(f"<|reserved_token_{token_id}|>", normalized=False, special=True)
        for token_id in range(num_ranks, num_ranks + NUM_RESERVED_TOKENS)
    }
    named = config.get("added_tokens_decoder") or {}
    if not isinstance(named, dict):
        raise TokenizerError("tokenizer_config.json: added_tokens_decoder must be an object")
    for key, entry in named.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not key.isdecimal() or not isinstance(content, str):
            raise TokenizerError(
                f"tokenizer_config.json: added_tokens_decoder has {key!r}: {entry!r}; expected a "
                "token id and an object with `content`"
            )
        special = bool(entry.get("special", False))
        tokens[int(key)] = AddedToken(content, normalized=False, special=special)
    return dict(sorted(tokens.items()))
