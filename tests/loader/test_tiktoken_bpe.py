"""A rank file read by us and by `tiktoken` itself gives the same ids."""

import base64
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from leadline.loader.errors import TokenizerError
from leadline.loader.tiktoken_bpe import KIMI_PATTERN
from leadline.loader.tokenizer import Tokenizer

WORDS = [b"th", b"the", b" the", b"in", b"ing", b" in", b"00", b"\xe4\xbd", b"\xe4\xbd\xa0", b"er"]
WORDS += [b" t", b"he", b"\xed\x95", b"\xed\x95\x9c", b"'s", b"\n\n", b"  "]


def train(words: list[bytes]) -> dict[bytes, int]:
    """Ranks whose every token can be reached by merges of lower ones."""
    ranks = {bytes([b]): b for b in range(256)}
    for word in sorted(words, key=len):
        for length in range(2, len(word) + 1):
            ranks.setdefault(word[:length], len(ranks))
    return ranks


RANKS = train(WORDS)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kimi")
    lines = [base64.b64encode(token) + b" %d" % rank for token, rank in RANKS.items()]
    (path / "tiktoken.model").write_bytes(b"\n".join(lines))
    end = f'{{"{len(RANKS) + 1}": {{"content": "[EOS]", "special": true}}}}'
    (path / "tokenizer_config.json").write_text(f'{{"added_tokens_decoder": {end}}}')
    return path


@given(st.text(alphabet=st.sampled_from("the in'sSTHE0123 \n\t\u4f60\ud55c\u00e9\u0301!?.,-er")))
@settings(max_examples=300, deadline=None)
def test_equals_tiktoken(directory: Path, text: str) -> None:
    oracle = tiktoken.Encoding(
        "kimi", pat_str=KIMI_PATTERN, mergeable_ranks=RANKS, special_tokens={}
    )
    tokenizer = Tokenizer.from_dir(directory)
    ids = tokenizer.encode(text)
    assert ids == oracle.encode(text, disallowed_special=())
    assert tokenizer.decode(ids) == text


def test_reserved_tokens(directory: Path) -> None:
    tokenizer = Tokenizer.from_dir(directory)
    assert tokenizer.vocab_size == len(RANKS) + 256
    assert tokenizer.encode("the[EOS]")[-1] == len(RANKS) + 1
    assert tokenizer.token_id(f"<|reserved_token_{len(RANKS)}|>") == len(RANKS)


@pytest.mark.parametrize("content", [b"!!! 0", b"YQ== x", b"YQ== 5"])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tiktoken.model").write_bytes(content)
    with pytest.raises(TokenizerError):
        Tokenizer.from_dir(tmp_path)
