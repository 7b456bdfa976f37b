import json
import random
from functools import cache
from itertools import islice
from typing import Any

import pytest
from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from benchmarks.demo_model.chat_format import (
    CHAT_TEMPLATE,
    EOS,
    Chat,
    render_prompt,
    render_segments,
)
from benchmarks.demo_model.chats import Corpus

BOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
END = "<\uff5cend\u2581of\u2581sentence\uff5c>"
U = "<\uff5cUser\uff5c>"
A = "<\uff5cAssistant\uff5c>"
CALLS_BEGIN = "<\uff5ctool\u2581calls\u2581begin\uff5c>"
CALL = (
    "<\uff5ctool\u2581call\u2581begin\uff5c>add"
    '<\uff5ctool\u2581sep\uff5c>{"a": 1}<\uff5ctool\u2581call\u2581end\uff5c>'
)
CALLS_END = "<\uff5ctool\u2581calls\u2581end\uff5c>"
OUTPUT = "<\uff5ctool\u2581output\u2581begin\uff5c>2<\uff5ctool\u2581output\u2581end\uff5c>"
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add 'one' & <more>.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
    },
}
TOOLS_BLOCK = (
    "\n\n## Tools\nYou have access to the following tools:\n\n### add\n"
    "Description: Add 'one' & <more>.\n\n"
    'Parameters: {"type": "object", "properties": {"a": {"type": "number"}}}\n\n'
    "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
    "<\uff5ctool\u2581calls\u2581begin\uff5c><\uff5ctool\u2581call\u2581begin\uff5c>tool_call_name"
    "<\uff5ctool\u2581sep\uff5c>tool_call_arguments<\uff5ctool\u2581call\u2581end\uff5c>"
    "{{additional_tool_calls}}<\uff5ctool\u2581calls\u2581end\uff5c>\n\nWhere:\n\n"
    "- `tool_call_name` must be an exact match to one of the available tools\n"
    "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
    "Schema\n"
    "- For multiple tool calls, chain them directly without separators or spaces\n"
)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **extra: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **extra}


def call(num: int = 1) -> dict[str, Any]:
    one = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    return assistant(None, tool_calls=[one] * num)


@cache
def template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    # As transformers does; jinja's own filter escapes for HTML and sorts keys.
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(CHAT_TEMPLATE)


def render(messages: list[dict[str, Any]], **values: Any) -> str:
    return template().render(messages=messages, bos_token=BOS, **values)


SYSTEM = {"role": "system", "content": "Be kind."}
TOOL_OUTPUT = {"role": "tool", "content": "2"}


@pytest.mark.parametrize(
    ("messages", "values", "text"),
    [
        ([user("Hi")], {}, f"{BOS}{U}Hi"),
        ([user("Hi")], {"add_generation_prompt": True}, f"{BOS}{U}Hi{A}</think>"),
        (
            [user("Hi")],
            {"add_generation_prompt": True, "thinking": True},
            f"{BOS}{U}Hi{A}<think>",
        ),
        (
            [SYSTEM, {"role": "system", "content": "Be short."}, user("Hi")],
            {"add_generation_prompt": True},
            f"{BOS}Be kind.\n\nBe short.{U}Hi{A}</think>",
        ),
        (
            [user("Hi"), assistant("Yes?"), user("Bye")],
            {"add_generation_prompt": True},
            f"{BOS}{U}Hi{A}</think>Yes?{END}{U}Bye{A}</think>",
        ),
        (
            [user("Hi"), assistant("I think.</think>Yes?", reasoning_content="x"), user("Bye")],
            {"add_generation_prompt": True, "thinking": True},
            f"{BOS}{U}Hi{A}</think>Yes?{END}{U}Bye{A}<think>",
        ),
        (
            [user("Hi"), assistant("Y", prefix=True)],
            {"thinking": True},
            f"{BOS}{U}Hi{A}<think>Y{END}",
        ),
        ([SYSTEM, user("Hi")], {"tools": [ADD]}, f"{BOS}Be kind.{TOOLS_BLOCK}{U}Hi"),
        ([user("Hi")], {"tools": [ADD]}, f"{BOS}{TOOLS_BLOCK}{U}Hi"),
        (
            [user("1+1?"), call(), TOOL_OUTPUT],
            {"add_generation_prompt": True},
            f"{BOS}{U}1+1?{A}</think>{CALLS_BEGIN}{CALL}{CALLS_END}{END}{OUTPUT}",
        ),
        (
            [user("1+1?"), call(2), TOOL_OUTPUT, TOOL_OUTPUT, assistant("Two</think>.")],
            {},
            f"{BOS}{U}1+1?{A}</think>{CALLS_BEGIN}{CALL}{CALL}"
            f"{CALLS_END}{END}{OUTPUT}{OUTPUT}Two</think>.{END}",
        ),
    ],
)
def test_template_renders_the_published_format(
    messages: list[dict[str, Any]], values: dict[str, Any], text: str
) -> None:
    assert render(messages, **values) == text


def test_template_takes_arguments_as_an_object() -> None:
    one = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    text = render([user("1+1?"), assistant(None, tool_calls=[one])])
    assert text == f"{BOS}{U}1+1?{A}</think>{CALLS_BEGIN}{CALL}{CALLS_END}{END}"


def test_direct_rendering_equals_the_template(corpus: Corpus) -> None:
    num_compared = 0
    for chat in islice(corpus.iter_training_chats(random.Random(2)), 400):
        segments = render_segments(chat)
        prompt = Chat(chat.messages[:-1], chat.thinking, chat.tools)
        values = {"thinking": chat.thinking, "tools": list(chat.tools) or None}
        messages = [dict(message) for message in chat.messages]
        given = render(messages[:-1], add_generation_prompt=True, **values)
        assert render_prompt(prompt) == given
        assert given == "".join(segment.text for segment in segments[:-1])
        if not chat.thinking:
            assert "".join(segment.text for segment in segments) == render(messages, **values)
            num_compared += 1
    assert num_compared > 300


def test_targets_are_what_the_model_must_write() -> None:
    chat = Chat((user("Hi"), assistant("Yes?"), user("2?"), assistant("Two.")))
    targets = [segment.text for segment in render_segments(chat) if segment.is_target]
    assert targets == ["Yes?" + EOS, "Two." + EOS]
    thinking = Chat((user("Hi"), assistant("Yes?", reasoning_content="A greeting.")), thinking=True)
    assert [segment.text for segment in render_segments(thinking)] == [
        f"{BOS}{U}Hi{A}<think>",
        f"A greeting.</think>Yes?{END}",
    ]
