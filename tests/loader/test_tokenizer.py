"""The built-in model's tokenizer, and the errors of broken ones."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leadline.loader.errors import TokenizerError
from leadline.loader.hub import resolve_model
from leadline.loader.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_dir(resolve_model("leadline-demo"))
TEXTS = [
    "What does `itertools.chain` do?",
    "\uc548\ub155\ud558\uc138\uc694, \uc138\uacc4",
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u2764\ufe0f",
    "  tabs\tand\r\nlines  ",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    assert b"".join(TOKENIZER.token_bytes(i) for i in ids).decode() == text


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_bytes_add_up_to_the_text(text: str) -> None:
    ids = TOKENIZER.encode(text)
    visible = [i for i in ids if i not in TOKENIZER.special_ids]
    assert b"".join(map(TOKENIZER.token_bytes, ids)).decode() == TOKENIZER.decode(visible)


def test_special_tokens() -> None:
    assert TOKENIZER.eos_token is not None
    end = TOKENIZER.token_id(TOKENIZER.eos_token)
    assert end is not None
    assert TOKENIZER.encode(f"a{TOKENIZER.eos_token}")[-1] == end
    assert TOKENIZER.token_bytes(end) == b""
    assert TOKENIZER.decode([end]) == ""
    assert TOKENIZER.decode([end], skip_special_tokens=False) == TOKENIZER.eos_token
    think = TOKENIZER.token_id("</think>")
    assert think is not None
    assert TOKENIZER.token_bytes(think) == b"</think>"


def test_ids_beyond_the_vocabulary_are_empty() -> None:
    assert TOKENIZER.token_bytes(TOKENIZER.vocab_size + 5) == b""


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor tiktoken\.model"):
        Tokenizer.from_dir(tmp_path)


def test_damaged(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.from_dir(tmp_path)


def test_token_as_object(tmp_path: Path) -> None:
    """transformers writes added tokens as objects."""
    shutil.copy(resolve_model("leadline-demo") / "tokenizer.json", tmp_path)
    config = {"eos_token": {"content": "<|EOT|>", "special": True}, "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.eos_token == "<|EOT|>"
    assert tokenizer.bos_token is None
