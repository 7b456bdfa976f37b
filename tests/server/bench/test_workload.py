from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.server.bench.errors import BenchError
from leadline.server.bench.options import ServeOptions
from leadline.server.bench.questions import QUESTIONS
from leadline.server.bench.vocabulary import Vocabulary, made_up_words
from leadline.server.bench.workload import make_samples, read_samples

WORDS = made_up_words(0)
IDS = Vocabulary(WORDS, 2.0, tuple(range(100, 900, 3)))
TEXT = Vocabulary(WORDS, 2.0)


def options(**changes: Any) -> ServeOptions:
    defaults = {"base_url": "http://h", "backend": "openai", "endpoint": "/v1/completions"}
    return ServeOptions(**(defaults | changes))


@given(
    num_prompts=st.integers(1, 20),
    input_len=st.integers(1, 50),
    ratio=st.floats(0, 0.99),
    prefix_len=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_random_prompts(
    num_prompts: int, input_len: int, ratio: float, prefix_len: int, seed: int
) -> None:
    settings = options(
        num_prompts=num_prompts,
        random_input_len=input_len,
        random_output_len=20,
        random_range_ratio=ratio,
        random_prefix_len=prefix_len,
        seed=seed,
    )
    samples = make_samples(settings, IDS)
    assert len(samples) == num_prompts + 1
    assert samples == make_samples(settings, IDS)
    for sample in samples:
        assert isinstance(sample.prompt, list)
        assert len(sample.prompt) == sample.num_tokens
        assert sample.prompt[:prefix_len] == samples[0].prompt[:prefix_len]
        assert set(sample.prompt) <= set(IDS.token_ids or ())
        own = len(sample.prompt) - prefix_len
        assert max(input_len * (1 - ratio) - 1, 1) <= own <= input_len * (1 + ratio) + 1
        assert 1 <= sample.num_output_tokens <= 40


@pytest.mark.parametrize("dataset", ["random", "prefix_repetition"])
def test_words_where_there_are_no_ids_or_it_is_a_chat(dataset: str) -> None:
    settings = {"dataset_name": dataset, "num_prompts": 2, "random_input_len": 512}
    for backend, vocabulary in (("openai", TEXT), ("openai-chat", IDS)):
        samples = make_samples(options(backend=backend, **settings), vocabulary)
        for sample in samples:
            assert isinstance(sample.prompt, str)
            assert len(sample.prompt.split()) == 256


def test_chats_begin_anew_at_their_end() -> None:
    settings = options(dataset_name="chat", backend="openai-chat", num_prompts=40)
    samples = make_samples(settings, None)
    assert len(samples) == 41
    assert {sample.prompt for sample in samples} == set(QUESTIONS)
    assert [sample.prompt for sample in samples[:16]] != list(QUESTIONS)


@pytest.mark.parametrize(
    ("line", "backend", "message"),
    [
        ("nonsense", "openai", "line 2: JSON is malformed"),
        ("[]", "openai", "line 2: there is no 'prompt'"),
        ('{"prompt": ""}', "openai", "line 2: there is no 'prompt'"),
        ('{"prompt": [1, "a"]}', "openai", "line 2: there is no 'prompt'"),
        ('{"prompt": "a", "output_tokens": 0}', "openai", "line 2: 'output_tokens' is 0"),
        ('{"prompt": "a", "output_tokens": "b"}', "openai", "line 2: 'output_tokens' is 'b'"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "openai", "--backend openai-chat"),
        ('{"messages": "a"}', "openai-chat", "line 2: 'messages', a list of them"),
        ('{"prompt": [1]}', "openai-chat", "needs --backend openai"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, backend: str, message: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(BenchError, match=message):
        read_samples(path, options(backend=backend))


def test_files_without_lines(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_samples(path, options())
    path.write_text("\n")
    with pytest.raises(BenchError, match="has no lines"):
        read_samples(path, options())
