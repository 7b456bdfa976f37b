"""Tool calls and reasoning of the built-in model, from a real `leadline serve`."""

import json
from typing import Any

import jsonschema
import openai
import pytest

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "no_parameters"}},
]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
MESSAGES: Any = [{"role": "user", "content": "What is the weather in Rome?"}]


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    settings = {"temperature": 1.0, "top_p": 1.0, "seed": 5, "max_tokens": 300}
    return client.chat.completions.create(model="demo", messages=MESSAGES, **(settings | fields))


@pytest.mark.parametrize("body", [{}, {"chat_template_kwargs": {"thinking": True}}])
@pytest.mark.parametrize("tool_choice", ["required", NAMED])
def test_a_call_that_must_come(client: openai.OpenAI, tool_choice: Any, body: Any) -> None:
    fields = {"tools": TOOLS, "tool_choice": tool_choice, "parallel_tool_calls": False, "n": 3}
    budget = {"thinking_token_budget": 20} if body else {}
    for choice in ask(client, **fields, extra_body=body | budget).choices:
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert bool(getattr(choice.message, "reasoning_content", None)) == bool(body)
        (call,) = choice.message.tool_calls
        arguments = json.loads(call.function.arguments)
        if tool_choice == NAMED or call.function.name == "get_weather":
            assert call.function.name == "get_weather"
            jsonschema.validate(arguments, PARAMETERS)
        else:
            assert (call.function.name, arguments) == ("no_parameters", {})


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    fields: Any = {"tools": TOOLS, "tool_choice": NAMED, "parallel_tool_calls": False}
    (whole,) = ask(client, **fields).choices
    name, arguments = "", ""
    for chunk in ask(client, **fields, stream=True):
        for choice in chunk.choices:
            for call in choice.delta.tool_calls or []:
                name += call.function.name or ""
                arguments += call.function.arguments
    (call,) = whole.message.tool_calls
    assert (name, arguments) == (call.function.name, call.function.arguments)


def test_a_strict_tool(client: openai.OpenAI) -> None:
    function = TOOLS[0]["function"] | {"strict": True}
    answer = ask(client, tools=[{"type": "function", "function": function}], n=3)
    for choice in answer.choices:
        for call in choice.message.tool_calls or []:
            jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)


def test_a_schema_that_cannot_be_kept_to(client: openai.OpenAI) -> None:
    function = {"name": "f", "parameters": {"not": {}}}
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=[{"type": "function", "function": function}], tool_choice="required")
    assert caught.value.param == "tools"


def test_reasoning(client: openai.OpenAI) -> None:
    body = {"chat_template_kwargs": {"thinking": True}, "thinking_token_budget": 30}
    answer = ask(client, extra_body=body, max_tokens=60)
    (choice,) = answer.choices
    assert choice.message.reasoning_content
    assert choice.message.reasoning_content == choice.message.reasoning
    assert "think>" not in choice.message.reasoning + choice.message.content
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens <= 30
    (plain,) = ask(client, max_tokens=20).choices
    assert getattr(plain.message, "reasoning_content", None) is None


def test_a_format_beside_tools(client: openai.OpenAI) -> None:
    """As agents ask for it: either calls, or an answer in the form."""
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for choice in ask(client, tools=TOOLS, response_format=response_format, n=3).choices:
        if choice.message.tool_calls:
            assert choice.message.content is None
        else:
            jsonschema.validate(json.loads(choice.message.content), schema)
    for choice in ask(
        client, tools=TOOLS, tool_choice=NAMED, response_format=response_format, n=2
    ).choices:
        (call,) = choice.message.tool_calls
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)
