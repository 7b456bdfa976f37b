"""Templates render as transformers renders them; what fails says why."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.loader.hub import resolve_model

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi & <hello>"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "\uc548\ub155"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_time",
            "description": "The time & <date>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def oracle(source: str, messages: Any = MESSAGES, **variables: Any) -> str:
    rendered, _ = render_jinja_template([messages], chat_template=source, **variables)
    return str(rendered[0])


@pytest.mark.parametrize("variables", [{}, {"thinking": True}, {"add_generation_prompt": False}])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_built_in_equals_transformers(variables: dict[str, Any], tools: Any) -> None:
    template = ChatTemplate.from_dir(resolve_model("leadline-demo"))
    assert template is not None
    arguments = {"add_generation_prompt": True} | variables
    config = json.loads((resolve_model("leadline-demo") / "tokenizer_config.json").read_text())
    specials = {"bos_token": config["bos_token"], "eos_token": config["eos_token"]}
    expected = oracle(config["chat_template"], tools=tools, **arguments, **specials)
    assert template.render(MESSAGES, tools=tools, **arguments) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n  {{ m.role }}: {{ m | tojson }}\n{% endfor %}",
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m.content }}\n  {% endif %}\n"
        "{% endfor %}",
        "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}x{% endfor %}",
        "{{ tools | tojson(indent=2) }}{{ messages[0]['content'].split(' ')[0] }}",
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
        "{% if m.role == 'user' %}{% continue %}{% endif %}{{ ns.n }}{% endfor %}",
        "{{ documents }} {{ strftime_now('%Y') }} {{ absent | default('-') }} {{ dict(a=1) }}",
    ],
)
def test_features_equal_transformers(source: str) -> None:
    expected = oracle(source, tools=TOOLS, add_generation_prompt=True)
    assert ChatTemplate(source, {}).render(MESSAGES, tools=TOOLS) == expected


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_names_of_reasoning_equal_transformers(name: str) -> None:
    messages = [{"role": "assistant", "content": "4", name: "2 + 2"}]
    source = "{{ messages[0].reasoning_content }} {{ messages[0].thinking }}"
    assert ChatTemplate(source, {}).render(messages) == oracle(source, messages)
    assert "2 + 2" in oracle(source, messages)


@pytest.mark.parametrize(
    ("sources", "is_read"),
    [
        ("{% if tools %}{{ tools }}{% endif %}", True),
        ("{{ messages }} tools", False),
        ("{% set tools = 1 %}{{ tools }}", False),
        ("{% set tools = tools or [] %}", True),
        ("{% for tools in tools %}{% endfor %}", True),
        ("{% for tools in messages %}{{ tools }}{% endfor %}", False),
        ("{% macro f(tools) %}{{ tools }}{% endmacro %}{{ f(1) }}", False),
        ("{% macro f(tools) %}{{ tools }}{% endmacro %}{{ f(tools) }}", True),
        ({"default": "x", "tool_use": "{{ tools | tojson }}"}, True),
    ],
)
def test_whether_tools_are_read(sources: Any, is_read: bool) -> None:
    assert ChatTemplate(sources, {}).reads_tools == is_read


def test_null_stays_null() -> None:
    source = "{% if messages[0]['content'] is none %}null{% endif %}"
    assert ChatTemplate(source, {}).render([{"role": "assistant", "content": None}]) == "null"


def test_sources_by_priority(tmp_path: Path) -> None:
    assert ChatTemplate.from_dir(tmp_path) is None
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = ChatTemplate.from_dir(tmp_path)
    assert template is not None
    assert template.render([]) == "d"
    assert template.render([], tools=TOOLS) == "t"
    (tmp_path / "chat_template.jinja").write_text("file {{ bos_token }}")
    config = {"chat_template": "other", "bos_token": {"content": "<s>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = ChatTemplate.from_dir(tmp_path)
    assert template is not None
    assert template.render([]) == "file <s>"


def test_syntax_error_names_the_line() -> None:
    with pytest.raises(TemplateError, match="line 2"):
        ChatTemplate("ok\n{% if %}", {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content.foo.bar }}",
        "{{ 1 + 'a' }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
    ],
)
def test_failures_are_template_errors(source: str) -> None:
    with pytest.raises(TemplateError):
        ChatTemplate(source, {}).render(MESSAGES)


@pytest.mark.parametrize(
    "sources", [3, [1], [{"name": "default"}], [{"name": "x", "template": ""}]]
)
def test_malformed_configs_are_named(tmp_path: Path, sources: Any) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": sources}))
    with pytest.raises(TemplateError, match=r"chat_template must be|no chat template named"):
        ChatTemplate.from_dir(tmp_path)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(TemplateError, match=r"chat_template\.jinja cannot be read"):
        ChatTemplate.from_dir(tmp_path)


def test_a_template_that_is_not_the_checkpoint_s(tmp_path: Path) -> None:
    directory = resolve_model("leadline-demo")
    path = tmp_path / "mine.jinja"
    path.write_text("{{ bos_token }}|{{ messages[0].content }}|{{ tools }}")
    template = ChatTemplate.from_file(path, directory)
    own = ChatTemplate.from_dir(directory)
    assert own is not None
    bos = own.variables["bos_token"]
    assert template.render([{"role": "user", "content": "hi"}]) == f"{bos}|hi|None"
    assert template.reads_tools


@pytest.mark.parametrize("content", [None, b"{% if %}", b"\xff"])
def test_a_template_file_that_cannot_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TemplateError, match=r"--chat-template: .*mine\.jinja cannot be used"):
        ChatTemplate.from_file(path, tmp_path)
