"""The built-in model's tokenizer, and what is said about broken ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from leadline.loader.errors import TokenizerError
from leadline.loader.hub import resolve_model
from leadline.loader.tokenizer import Tokenizer

DIRECTORY = resolve_model("leadline-demo")
TOKENIZER = Tokenizer.from_dir(DIRECTORY)
ORACLE = tokenizers.Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
TEXTS = [
    "What does `itertools.chain` do?",
    "\uc548\ub155\ud558\uc138\uc694, \uc138\uacc4",
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u2764\ufe0f",
    "  tabs\tand\r\nlines  ",
    "",
]


def copy_with(directory: Path, **config: Any) -> Tokenizer:
    """The built-in tokenizer under another tokenizer_config.json."""
    shutil.copy(DIRECTORY / "tokenizer.json", directory)
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.from_dir(directory)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert b"".join(TOKENIZER.token_bytes(i) for i in ids).decode() == text


@given(ids=st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=20), skip=st.booleans())
@settings(max_examples=200, deadline=None)
def test_decoding_equals_the_library(ids: list[int], skip: bool) -> None:
    assert TOKENIZER.decode(ids, skip_special_tokens=skip) == ORACLE.decode(
        ids, skip_special_tokens=skip
    )


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_bytes_add_up_to_the_text(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert b"".join(map(TOKENIZER.token_bytes, ids)).decode() == text


def test_special_tokens_in_a_text() -> None:
    end = TOKENIZER.special_tokens["eos_token"]
    assert TOKENIZER.eos_id is not None
    assert TOKENIZER.encode(f"a{end}b")[1:-1] == [TOKENIZER.eos_id]
    assert TOKENIZER.eos_id in TOKENIZER.special_ids
    assert TOKENIZER.token_bytes(TOKENIZER.eos_id) == b""
    assert TOKENIZER.decode([TOKENIZER.eos_id]) == ""
    assert TOKENIZER.decode([TOKENIZER.eos_id], skip_special_tokens=False) == end


def test_markup_is_text() -> None:
    """Parsers of reasoning and tool calls must see it."""
    [think] = TOKENIZER.encode("</think>")
    assert think not in TOKENIZER.special_ids
    assert TOKENIZER.token_bytes(think) == b"</think>"


def test_ids_beyond_the_vocabulary_are_empty() -> None:
    assert TOKENIZER.token_bytes(TOKENIZER.vocab_size) == b""
    assert TOKENIZER.token_bytes(-1) == b""
    assert TOKENIZER.decode([TOKENIZER.vocab_size + 5, -1]) == ""


def test_a_token_that_is_not_spelt_in_bytes() -> None:
    backend = tokenizers.Tokenizer(models.BPE(vocab={"a": 0, "\uff5cend\uff5c": 1}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    tokenizer = Tokenizer(backend, {})
    assert tokenizer.token_bytes(1).decode() == "\uff5cend\uff5c"
    assert tokenizer.vocab_size == 2


def test_token_as_object(tmp_path: Path) -> None:
    """As transformers 4 writes them."""
    eos = {"content": "<|EOT|>", "special": True}
    tokenizer = copy_with(tmp_path, eos_token=eos, bos_token=None)
    assert tokenizer.special_tokens == {"eos_token": "<|EOT|>"}
    assert tokenizer.eos_id == TOKENIZER.encode("<|EOT|>")[0]
    assert tokenizer.bos_id is None


@pytest.mark.parametrize(("add_bos", "expected"), [(True, 1), (False, 0), (None, 0)])
def test_prefix_of_a_plain_prompt(tmp_path: Path, add_bos: bool | None, expected: int) -> None:
    bos = TOKENIZER.special_tokens["bos_token"]
    tokenizer = copy_with(tmp_path, bos_token=bos, add_bos_token=add_bos)
    assert tokenizer.prefix_ids == (TOKENIZER.bos_id,) * expected


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"expected tokenizer\.json, or tiktoken\.model"):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_damaged(tmp_path: Path, name: str) -> None:
    shutil.copy(DIRECTORY / "tokenizer.json", tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(TokenizerError, match=rf"{name} cannot be read"):
        Tokenizer.from_dir(tmp_path)


def test_another_kind_of_tokenizer() -> None:
    backend = tokenizers.Tokenizer(models.Unigram([("a", 0.0)]))
    backend.decoder = decoders.Metaspace()
    with pytest.raises(TokenizerError, match="Metaspace; only ByteLevel"):
        Tokenizer(backend, {})
