"""What the tests of the built-in model share."""

import pytest
from tokenizers import Tokenizer

from benchmarks.demo_model.chats import Corpus, build_corpus
from benchmarks.demo_model.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    return build_corpus()


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return train_tokenizer(corpus, seed=0)
