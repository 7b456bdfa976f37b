"""What tests of the server share: Hypothesis without clocks, and a model without weights."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tokenizers
from hypothesis import HealthCheck, settings
from tokenizers import decoders, models, pre_tokenizers

from leadline.loader.synthetic import tiny_v3

settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

TESTS = Path(__file__).parent.parent
CONFIG = tiny_v3() | {
    "vocab_size": 512,
    "num_nextn_predict_layers": 0,
    "max_position_embeddings": 400,
    "bos_token_id": 300,
    "eos_token_id": 301,
    "rope_scaling": None,
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint's directory without weights: a token a byte, and a template."""
    directory = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(directory / "tokenizer.json"))
    (directory / "config.json").write_text(json.dumps(CONFIG))
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (directory / "chat_template.jinja").write_text(template)
    return directory


@pytest.fixture(scope="module")
def importable() -> Iterator[None]:
    """Lets other processes import the product and the builders."""
    paths = [str(TESTS / "server"), str(TESTS / "engine"), *filter(None, sys.path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        yield
