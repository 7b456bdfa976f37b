"""What the built-in model can do with the demo tools and in thinking mode, by OpenAI's client."""

import json
from typing import Any

import openai
import pytest

from leadline.server.demo_tools import TOOLS, answer_call

QUESTION: Any = {"role": "user", "content": "What's the weather in Lisbon?"}
FACT: Any = [{"role": "user", "content": "Explain itertools.chain."}]
FACT_ANSWER = "Iterate over several iterables one after the other, as if they were a single one."
THINKING = {"chat_template_kwargs": {"thinking": True}}


def ask(client: openai.OpenAI, messages: list[Any], **fields: Any) -> Any:
    answer = client.chat.completions.create(
        model="demo", messages=messages, temperature=0, max_tokens=120, **fields
    )
    (choice,) = answer.choices
    return choice


def test_it_calls_a_tool_and_answers_from_the_result(client: openai.OpenAI) -> None:
    tools: Any = list(TOOLS)
    first = ask(client, [QUESTION], tools=tools, tool_choice="auto")
    assert first.finish_reason == "tool_calls"
    (call,) = first.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Lisbon"}
    content = answer_call(call.function.name, call.function.arguments)
    output = {"role": "tool", "tool_call_id": call.id, "content": content}
    messages = [QUESTION, first.message.model_dump(exclude_none=True), output]
    second = ask(client, messages, tools=tools)
    assert second.finish_reason == "stop"
    assert second.message.content == "It is sunny in Lisbon, at 22 degrees."


@pytest.mark.parametrize(
    "tool_choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
def test_a_forced_call_has_the_right_arguments(client: openai.OpenAI, tool_choice: Any) -> None:
    choice = ask(client, [QUESTION], tools=list(TOOLS), tool_choice=tool_choice)
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Lisbon"}


def test_a_question_for_no_tool_is_answered(client: openai.OpenAI) -> None:
    choice = ask(client, FACT, tools=list(TOOLS))
    assert choice.message.tool_calls is None
    assert choice.message.content == FACT_ANSWER


def test_it_thinks_before_it_answers_where_asked_to(client: openai.OpenAI) -> None:
    thinking = ask(client, FACT, extra_body=THINKING)
    assert thinking.message.content == FACT_ANSWER
    assert thinking.message.reasoning_content == (
        "This is about Python and its standard library. I answer from the documentation."
    )
    plain = ask(client, FACT)
    assert plain.message.content == FACT_ANSWER
    assert getattr(plain.message, "reasoning_content", None) is None


def test_the_terminal_shows_calls_and_answers(cli: Any, service: Any) -> None:
    flags = ("--url", service.url, "--demo-tools", "--temperature", "0")
    done = cli("chat", *flags, text=QUESTION["content"] + "\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        '-> get_weather {"city": "Lisbon"}',
        '<- {"sky": "sunny", "degrees": 22}',
        "It is sunny in Lisbon, at 22 degrees.",
    ]
