"""Dialects are found from what a checkpoint has."""

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.hub import resolve_model
from leadline.loader.tokenizer import Tokenizer
from leadline.server.dialects.dialect import (
    DEEPSEEK_TEXTS,
    KIMI_TEXTS,
    Form,
    find_dialect,
    tools_text,
)

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def make_tokenizer(*marks: str) -> Tokenizer:
    vocab = {character: id_ for id_, character in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(mark, special=False) for mark in marks])
    return Tokenizer(backend, {})


DEEPSEEK, KIMI = (
    make_tokenizer(*DEEPSEEK_TEXTS.values()),
    make_tokenizer(*KIMI_TEXTS.values()),
)


def test_the_built_in_model_writes_as_v3_1_does() -> None:
    directory = resolve_model("leadline-demo")
    template = ChatTemplate.from_dir(directory)
    assert template is not None
    assert template.reads_tools
    dialect = find_dialect(Tokenizer.from_dir(directory), template.source)
    assert dialect is not None
    assert dialect.form is Form.DEEPSEEK_V3_1
    prompt = template.render([{"role": "user", "content": "x"}], tools=[TOOL])
    assert tools_text(dialect, [TOOL]) in prompt


@pytest.mark.parametrize(
    ("tokenizer", "template", "form"),
    [
        (DEEPSEEK, "{{ name }}\\n```json\\n{{ arguments }}", Form.DEEPSEEK_V3),
        (DEEPSEEK, "{{ name }}{{ arguments }}", Form.DEEPSEEK_V3_1),
        (KIMI, "```json", Form.KIMI_K2),
    ],
)
def test_a_dialect_by_tokens_and_template(tokenizer: Tokenizer, template: str, form: Form) -> None:
    dialect = find_dialect(tokenizer, template)
    assert dialect is not None
    assert dialect.form is form
    assert all(
        tokenizer.encode(text) == [dialect.ids[mark]] for mark, text in dialect.texts.items()
    )


def test_marks_must_be_tokens() -> None:
    assert find_dialect(make_tokenizer(), "```json") is None
    assert find_dialect(make_tokenizer(*list(KIMI_TEXTS.values())[1:]), "") is None


def test_the_format_is_explained_as_it_is_read() -> None:
    v3 = find_dialect(DEEPSEEK, "```json")
    kimi = find_dialect(KIMI, "")
    assert v3 is not None
    assert kimi is not None
    assert "function<\uff5ctool\u2581sep\uff5c>tool_call_name\n```json\n" in tools_text(v3, [TOOL])
    assert "functions.tool_call_name:0<|tool_call_argument_begin|>" in tools_text(kimi, [TOOL])
