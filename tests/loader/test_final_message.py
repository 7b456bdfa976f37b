"""Prompts that end within the last message: cut as transformers cuts them."""

import json
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.loader.final_message import render_open
from leadline.loader.hub import resolve_model

# What the families' templates do with an assistant's message, and no more of them.
V3 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<U>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<A>{{ m['content'] }}<E>{% else %}{{ m['content'] }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<A>{% endif %}"
)
R1 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<U>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<A>{{ m['content'].split('</think>')[-1] }}<E>"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<A><think>\n{% endif %}"
)
KIMI = (
    "{% for m in messages %}<|im_{{ m['role'] }}|>{{ m['role'] }}<|im_middle|>"
    "{{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
)
KIMI_THINKING = (
    "{% for m in messages %}<|im_{{ m['role'] }}|>{{ m['role'] }}<|im_middle|>"
    "{% if m['role'] == 'assistant' %}<think>{{ m['reasoning_content'] }}</think>{% endif %}"
    "{{ m['content'] }}<|im_end|>{% endfor %}"
)
TRIMS = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}<E>{% endfor %}"
BUILT_IN_DIR = resolve_model("leadline-demo")
CONFIG = json.loads((BUILT_IN_DIR / "tokenizer_config.json").read_text())
V3_1 = CONFIG["chat_template"]
BOS = CONFIG["bos_token"]
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def opened(source: str, last: dict[str, Any], **settings: Any) -> str:
    template = ChatTemplate(source, {"bos_token": BOS, "eos_token": "<E>"})
    messages = [*QUESTION, {"role": "assistant", **last}]
    return render_open(template, messages, **settings)


@pytest.mark.parametrize("source", [V3, R1, V3_1, KIMI, TRIMS])
@pytest.mark.parametrize("content", ["It is", "It is ", "  It", "<b>&\n", "\u0130\U0001f600", "4"])
@pytest.mark.parametrize("thinking", [False, True])
def test_content_is_cut_as_transformers_cuts_it(source: str, content: str, thinking: bool) -> None:
    messages = [*QUESTION, {"role": "assistant", "content": content}]
    (expected,), _ = render_jinja_template(
        [messages],
        chat_template=source,
        continue_final_message=True,
        thinking=thinking,
        bos_token=BOS,
        eos_token="<E>",
    )
    found = opened(source, {"content": content}, thinking=thinking)
    assert found == expected
    assert found.endswith(content.strip() if source == TRIMS else content)


@pytest.mark.parametrize("content", ["", None])
def test_nothing_is_a_beginning_too(content: Any) -> None:
    assert opened(V3, {"content": content}).endswith("<A>")
    assert opened(V3_1, {"content": content}).endswith("</think>")


@pytest.mark.parametrize(
    ("source", "content", "end"),
    [
        (R1, "It is", "<A><think>\nAdd\n</think>It is"),
        (R1, "", "<A><think>\nAdd\n"),
        (V3_1, "It is", "\uff5c><think>Add\n</think>It is"),
        (V3_1, "", "\uff5c><think>Add\n"),
        (KIMI_THINKING, "It is", "<|im_middle|><think>Add\n</think>It is"),
        (KIMI_THINKING, "", "<|im_middle|><think>Add\n"),
    ],
)
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("thinking", [False, True])
def test_reasoning_is_shown(source: str, content: str, end: str, name: str, thinking: bool) -> None:
    found = opened(source, {"content": content, name: "Add\n"}, thinking=thinking)
    assert found.endswith(end)
    assert "2 + 2?" in found


@pytest.mark.parametrize(
    ("source", "last"),
    [
        (V3, {"content": "It", "reasoning_content": "Add"}),  # it never thinks
        (V3_1, {"content": "Add</think>It"}),  # drops what it takes for reasoning
        ("{{ messages[0].content }}", {"content": "It"}),
        ("{{ raise_exception('no') }}", {"content": "It"}),
    ],
)
def test_what_the_template_does_not_show_is_refused(source: str, last: dict[str, Any]) -> None:
    with pytest.raises(TemplateError):
        opened(source, last)
