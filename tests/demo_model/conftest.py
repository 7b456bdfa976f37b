"""Makes `benchmarks` importable without putting the repository root on the path.

The root must stay off `sys.path`: its folder `kernels` would hide the distribution of that name.
"""

import sys
from pathlib import Path
from types import ModuleType

import pytest

if "benchmarks" not in sys.modules:
    _package = ModuleType("benchmarks")
    _package.__path__ = [str(Path(__file__).parents[2] / "benchmarks")]
    sys.modules["benchmarks"] = _package

from tokenizers import Tokenizer

from benchmarks.demo_model.chats import Corpus, build_corpus
from benchmarks.demo_model.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return train_tokenizer(corpus, seed=0)
