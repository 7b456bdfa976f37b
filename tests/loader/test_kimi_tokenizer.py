"""A rank file read by us and by `tiktoken` itself gives the same ids."""

import base64
import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leadline.loader.errors import TokenizerError
from leadline.loader.kimi_tokenizer import NUM_RESERVED_TOKENS, PATTERN, merges_of
from leadline.loader.tokenizer import Tokenizer

ALPHABET = "the in'sSTHE0123 \n\t\r\u4f60\u597d\ud55c\u00e9\u0301!?.,-er\u2019\u00a0\u3000"
TEXT = (
    "The thing in the inn isn't there, the other one is: 2024 10000 'S 'LL they're THEY'RE\n\n"
    "\u4f60\u597d\u4f60\u597dthe\u4f60\u597d \ud55c\ud55c caf\u00e9 e\u0301\u0301   \r\n\t end"
)


def train(text: str, num_merges: int) -> dict[bytes, int]:
    """Ranks of byte pair encoding without a pre-tokeniser, so that tokens cross words too."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    parts = [bytes([byte]) for byte in text.encode()]
    for _ in range(num_merges):
        pairs = list(zip(parts, parts[1:], strict=False))
        best = max(sorted(set(pairs)), key=pairs.count)
        ranks.setdefault(best[0] + best[1], len(ranks))
        merged: list[bytes] = []
        for part in parts:
            if merged and (merged[-1], part) == best:
                merged[-1] += part
            else:
                merged.append(part)
        parts = merged
    return ranks


RANKS = train(TEXT, 80)
FIRST = len(RANKS)
SPECIAL = {"[BOS]": FIRST, "[EOS]": FIRST + 1, "<|tool|>": FIRST + 7}
ORACLE = tiktoken.Encoding(
    "kimi", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=dict(SPECIAL)
)


def write(directory: Path, ranks: dict[bytes, int]) -> Path:
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in ranks.items()]
    (directory / "tiktoken.model").write_bytes(b"\n".join(lines) + b"\n")
    added = {str(i): {"content": name, "special": name[0] == "["} for name, i in SPECIAL.items()}
    config = {"added_tokens_decoder": added, "bos_token": "[BOS]", "eos_token": "[EOS]"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_dir(write(tmp_path_factory.mktemp("kimi"), RANKS))


@given(st.text(st.sampled_from(ALPHABET) | st.characters(codec="utf-8"), max_size=60))
@example(TEXT)
@settings(max_examples=400, deadline=None)
def test_equals_tiktoken(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids == ORACLE.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == text


def test_special_tokens(tokenizer: Tokenizer) -> None:
    text = "the[EOS] <|tool|>[BOS]"
    ids = tokenizer.encode(text)
    assert ids == ORACLE.encode(text, allowed_special="all")
    assert tokenizer.decode(ids) == "the <|tool|>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert (tokenizer.bos_id, tokenizer.eos_id) == (FIRST, FIRST + 1)


def test_reserved_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == FIRST + NUM_RESERVED_TOKENS
    assert tokenizer.encode(f"<|reserved_token_{FIRST + 2}|>") == [FIRST + 2]
    assert FIRST + 2 in tokenizer.special_ids


def test_no_names_and_an_empty_last_line(tmp_path: Path) -> None:
    write(tmp_path, RANKS)
    with (tmp_path / "tiktoken.model").open("ab") as file:
        file.write(b"\n")
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": null}')
    assert Tokenizer.from_dir(tmp_path).vocab_size == FIRST + NUM_RESERVED_TOKENS


def test_han_runs_are_pieces_of_their_own(tmp_path: Path) -> None:
    """A rank across the border between scripts is out of reach."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"e\xe4": 256, b"\xa0e": 257}
    oracle = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    text = "the\u4f60\u597dthe\u4f60e"
    tokenizer = Tokenizer.from_dir(write(tmp_path, ranks))
    assert tokenizer.encode(text) == oracle.encode(text) == list(text.encode())


def test_a_whole_piece_is_looked_up_first(tmp_path: Path) -> None:
    """As tiktoken does: merging, lowest rank first, ends at "a", "bc", "d"."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {b"bc": 256, b"ab": 257, b"cd": 258, b"abcd": 259}
    oracle = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    tokenizer = Tokenizer.from_dir(write(tmp_path, ranks))
    assert tokenizer.encode("abcd") == oracle.encode("abcd") == [259]
    assert tokenizer.encode("xabcd") == oracle.encode("xabcd") == [120, 97, 256, 100]


def test_every_cut_is_a_merge() -> None:
    ranks = {b"a": 0, b"b": 1, b"ab": 2, b"ba": 3, b"aba": 4}
    assert merges_of(ranks) == [(b"a", b"b"), (b"b", b"a"), (b"a", b"ba"), (b"ab", b"a")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"!!! 0", r"line 1: b'!!! 0' is not a token in base64 and its rank"),
        (b"YQ== x", r"line 1: .*is not a token"),
        (b"YQ==", r"line 1: .*is not a token"),
        (b"YQ== 5", r"line 1: rank 5; expected a new token of rank 0"),
        (b"YQ== 0\nYQ== 1", r"line 2: rank 1; expected a new token"),
        (b"YQ== 0", r"lacks single bytes: \[0, 1,"),
    ],
)
def test_broken_rank_files(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "tiktoken.model").write_bytes(content)
    with pytest.raises(TokenizerError, match=problem):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize(
    "added",
    [
        {"x": {"content": "[A]"}},
        {"300": "[A]"},
        {"300": {"content": 3}},
        {"3": {"content": "[A]"}},
        ["[A]"],
    ],
)
def test_broken_special_tokens(tmp_path: Path, added: object) -> None:
    write(tmp_path, {bytes([byte]): byte for byte in range(256)})
    config = json.dumps({"added_tokens_decoder": added})
    (tmp_path / "tokenizer_config.json").write_text(config)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        Tokenizer.from_dir(tmp_path)
