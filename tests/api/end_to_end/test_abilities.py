"""What the built-in model can do with tools and in thinking mode, through OpenAI's client."""

import json
from typing import Any

import openai
import pytest

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": WEATHER["function"]
    | {"name": "get_time", "description": "Get the current local time in a city."},
}
QUESTION: Any = {"role": "user", "content": "What's the weather in Lisbon?"}


def ask(client: openai.OpenAI, messages: list[Any], **fields: Any) -> Any:
    answer = client.chat.completions.create(
        model="demo", messages=messages, temperature=0, max_tokens=120, **fields
    )
    (choice,) = answer.choices
    return choice


def test_it_calls_a_tool_and_answers_from_the_result(client: openai.OpenAI) -> None:
    first = ask(client, [QUESTION], tools=[WEATHER, TIME], tool_choice="auto")
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Lisbon"}
    output = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": json.dumps({"sky": "foggy", "degrees": 17}),
    }
    messages = [QUESTION, first.message.model_dump(exclude_none=True), output]
    second = ask(client, messages, tools=[WEATHER, TIME])
    assert second.finish_reason == "stop"
    assert second.message.content == "It is foggy in Lisbon, at 17 degrees."


@pytest.mark.parametrize(
    "tool_choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_forced_call_has_sensible_arguments(client: openai.OpenAI, tool_choice: Any) -> None:
    choice = ask(client, [QUESTION], tools=[WEATHER], tool_choice=tool_choice)
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Lisbon"}


def test_a_question_for_no_tool_is_answered(client: openai.OpenAI) -> None:
    choice = ask(
        client, [{"role": "user", "content": "What does len() do?"}], tools=[WEATHER, TIME]
    )
    assert choice.message.tool_calls is None
    assert choice.message.content == "Return the number of items in a container."


def test_it_thinks_before_it_answers_where_asked_to(client: openai.OpenAI) -> None:
    question = [{"role": "user", "content": "Explain itertools.chain."}]
    answer = "Iterate over several iterables one after the other, as if they were a single one."
    thinking = ask(client, question, extra_body={"chat_template_kwargs": {"thinking": True}})
    assert thinking.message.content == answer
    assert thinking.message.reasoning_content == (
        "The user asks about itertools.chain. That is a class of the module itertools."
    )
    plain = ask(client, question)
    assert plain.message.content == answer
    assert getattr(plain.message, "reasoning_content", None) is None
