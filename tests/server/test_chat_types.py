import json
from typing import Any

import pytest

from leadline.server.body import parse_body
from leadline.server.chat_types import ChatRequest
from leadline.server.errors import BadRequestError

FUNCTION = {"type": "function", "function": {"name": "f"}}
HELLO = [{"role": "user", "content": "hello"}]


def parse(**fields: Any) -> ChatRequest:
    body = {"model": "m", "messages": HELLO, **fields}
    return parse_body(json.dumps(body).encode(), ChatRequest)


def template_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    request = parse(messages=messages)
    return [message.for_template(index) for index, message in enumerate(request.messages)]


def test_the_text_parts_of_a_message_become_one_text() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    (message,) = template_messages([{"role": "user", "content": parts}])
    assert message["role"] == "user"
    assert message["content"].split() == ["one", "two"]


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_roles_go_to_the_template(role: str) -> None:
    (message,) = template_messages([{"role": role, "content": "x"}])
    assert message == {"role": role, "content": "x"}


def test_a_developer_speaks_as_the_system() -> None:
    (message,) = template_messages([{"role": "developer", "content": "x"}])
    assert message == {"role": "system", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "wizard", "content": "x"}], "messages[0].role"),
        ([*HELLO, {"role": "user", "content": 3}], "messages[1].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0].type",
        ),
        ([3], "messages[0]"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(messages: Any, param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        template_messages(messages)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"functions": [{"name": "f"}], "tools": [FUNCTION]},
        {"function_call": {"name": "f"}},
        {"top_logprobs": 3},
        {"top_logprobs": 3, "logprobs": False},
        {"modalities": ["audio"]},
        {"web_search_options": {"x": 1}},
        {"web_search_options": {}},
        {"chat_template": "{{ 9**9 }}"},
    ],
)
def test_a_known_field_that_is_not_honoured_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields).check()
    assert caught.value.param == next(iter(fields))


@pytest.mark.parametrize("name", ["tokenize", "messages", "chat_template", "add_generation_prompt"])
def test_template_settings_that_belong_to_the_server_are_refused(name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(chat_template_kwargs={name: True}).check()
    assert caught.value.param is not None
    assert name in caught.value.param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"echo": 1}, "echo"),
        ({"thinking": {"type": "auto"}}, "thinking.type"),
        ({"thinking": {"type": "enabled"}, "reasoning_effort": "none"}, "reasoning_effort"),
        ({"include_reasoning": False, "separate_reasoning": False}, "include_reasoning"),
        ({"stream_reasoning": False}, "stream_reasoning"),
    ],
)
def test_a_value_out_of_range_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(**fields).check()
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "num_logprobs"),
    [
        ({}, None),
        ({"logprobs": False, "top_logprobs": 0}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_the_number_of_logprobs(fields: dict[str, Any], num_logprobs: int | None) -> None:
    request = parse(**fields)
    assert request.check() == []
    assert request.num_logprobs == num_logprobs


def test_an_effort_sets_budget_and_template_and_what_is_explicit_wins() -> None:
    assert parse().thinking_budget is None
    assert parse().template_settings == {}
    low, none = parse(reasoning_effort="low"), parse(reasoning_effort="none")
    assert (low.thinking_budget, none.thinking_budget) == (1024, 0)
    assert low.template_settings == {"thinking": True, "enable_thinking": True}
    assert none.template_settings == {"thinking": False, "enable_thinking": False}
    both = parse(
        reasoning_effort="low",
        thinking_token_budget=7,
        chat_template_kwargs={"thinking": False},
    )
    assert both.thinking_budget == 7
    assert both.thinking_param == "thinking_token_budget"
    assert both.template_settings == {"thinking": False, "enable_thinking": True}


def test_tools_that_may_not_be_called_are_accepted() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    assert parse(tools=[tool], tool_choice="none", parallel_tool_calls=False).check() == []
    assert parse(tools=[], tool_choice="auto").check() == []


def test_what_is_asked_for_about_calls() -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    assert parse().tool_use is None
    auto = parse(tools=tools).tool_use
    assert auto is not None
    assert (auto.is_forced, auto.needs_grammar, auto.max_calls) == (False, False, None)
    required = parse(tools=tools, tool_choice="required", parallel_tool_calls=False).tool_use
    assert required is not None
    assert (required.is_forced, required.needs_grammar, required.max_calls) == (True, True, 1)
    named = parse(tools=tools, tool_choice={"type": "function", "function": {"name": "g"}}).tool_use
    assert named is not None
    assert [tool.function.name for tool in named.callable] == ["g"]
    assert [tool.function.name for tool in named.tools] == ["f", "g"]


def test_calls_in_messages_are_as_templates_read_them() -> None:
    call = {"id": "x", "function": {"name": "f", "arguments": {"a": "\u00fc"}}}
    assistant = {"role": "assistant", "tool_calls": [call], "reasoning": "r"}
    (message,) = template_messages([assistant])
    assert message["content"] is None
    assert message["reasoning"] == "r"
    assert message["tool_calls"] == [
        {
            "id": "x",
            "type": "function",
            "function": {"name": "f", "arguments": '{"a": "\u00fc"}'},
        }
    ]
    (plain,) = template_messages([{"role": "assistant", "content": "x", "tool_calls": None}])
    assert plain == {"role": "assistant", "content": "x"}
    with pytest.raises(BadRequestError) as caught:
        template_messages([{"role": "user", "content": "x", "tool_calls": [call]}])
    assert caught.value.param == "messages[0].tool_calls"


def test_the_newer_name_of_the_token_limit_wins() -> None:
    assert parse(max_tokens=5, max_completion_tokens=7).output_limit == 7
    assert parse(max_tokens=5).output_limit == 5
    assert parse().output_limit is None
