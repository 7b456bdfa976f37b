"""The built-in model's tokens, and some of a tokenizer made up for the purpose."""

from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, settings
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from leadline.engine.grammar.tokens import GrammarTokens, make_tokens, read_tokens
from leadline.loader.hub import resolve_model
from leadline.loader.tokenizer import Tokenizer

settings.register_profile("busy", deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile("busy")

PAIRS = ("ab", "bb", '":', '",', "{}", " {", "12", "aa")


@pytest.fixture(scope="session")
def directory() -> Path:
    return resolve_model("leadline-demo")


@pytest.fixture(scope="session")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_dir(directory)


@pytest.fixture(scope="session")
def tokens(directory: Path) -> GrammarTokens:
    return read_tokens(directory)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """All bytes, some pairs, and the special tokens <end>, <stop> and <tool>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [pair.replace(" ", "\u0120") for pair in PAIRS]
    vocabulary = {text: token_id for token_id, text in enumerate([*alphabet, *pairs])}
    model = models.BPE(vocab=vocabulary, merges=[(pair[0], pair[1]) for pair in pairs])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = ("<end>", "<stop>", "<tool>")
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    return Tokenizer(backend, {"eos_token": "<end>"})


@pytest.fixture(scope="session")
def byte_tokens(byte_tokenizer: Tokenizer) -> GrammarTokens:
    """Of a model with 37 rows more than its tokenizer has tokens, and two end tokens."""
    (end_id, stop_id) = byte_tokenizer.encode("<end><stop>")
    return make_tokens(byte_tokenizer, byte_tokenizer.vocab_size + 37, [end_id, stop_id, 10_000])
