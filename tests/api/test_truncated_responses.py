"""Conversations that are too long, with OpenAI's own client: refused, or without the oldest."""

from collections.abc import Callable
from typing import Any

import openai
import pytest

from leadline.loader.chat_template import ChatTemplate
from leadline.server.limits import Limits

# A token is a byte: every message is as long as this makes it.
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}{{ m.content or '' }}{{ m.reasoning_content or '' }}"
    "{% for c in m.tool_calls or [] %}<{{ c.id }}>{% endfor %}{% if m.tool_call_id %}="
    "{{ m.tool_call_id }}{% endif %}|{% endfor %}"
)
USER, ASSISTANT = "user", "assistant"


@pytest.fixture
def short(serve: Callable[..., Any]) -> Callable[..., Any]:
    """A service whose model has room for so many tokens."""

    def start(num_tokens: int, **state: Any) -> Any:
        settings = {"template": ChatTemplate(TEMPLATE, {}), "max_model_len": num_tokens} | state
        return serve(text=lambda request: "A", ends=False, state=settings)

    return start


def turn(role: str, content: str) -> Any:
    return {"role": role, "content": content}


def ask(service: Any, **fields: Any) -> Any:
    fields = {"model": "tiny", "truncation": "auto"} | fields
    return service.client.responses.create(**fields)


def prompt_of(service: Any) -> str:
    request = service.engine.requests[-1]
    return str(service.state.tokenizer.decode(request.prompt_ids, skip_special_tokens=False))


TALK = [turn(USER, "Q1"), turn(ASSISTANT, "A1"), turn(USER, "Q2"), turn(ASSISTANT, "A2")]
LAST = turn(USER, "Q3")


@pytest.mark.parametrize(
    ("room", "prompt"),
    [
        (20, "uQ1|aA1|uQ2|aA2|uQ3|"),
        (19, "aA1|uQ2|aA2|uQ3|"),
        (12, "uQ2|aA2|uQ3|"),
        (11, "aA2|uQ3|"),
        (4, "uQ3|"),
    ],
)
def test_as_little_is_left_out_as_will_do(
    short: Callable[..., Any], room: int, prompt: str
) -> None:
    service = short(room + 1)
    response = ask(service, input=[*TALK, LAST])
    assert response.truncation == "auto"
    assert prompt_of(service) == prompt
    counted = service.client.responses.input_tokens.count(input=[*TALK, LAST], truncation="auto")
    assert counted.input_tokens == len(prompt) == response.usage.input_tokens


def test_there_is_room_for_the_answer(short: Callable[..., Any]) -> None:
    service = short(30)
    ask(service, input=[*TALK, LAST], max_output_tokens=20)
    assert prompt_of(service) == "aA2|uQ3|"
    service = short(30, limits=Limits(prompt_tokens=5))
    ask(service, input=[*TALK, LAST])
    assert prompt_of(service) == "uQ3|"


def test_what_the_system_says_stays(short: Callable[..., Any]) -> None:
    service = short(14)
    items = [turn("developer", "D"), *TALK, turn("system", "S"), LAST]
    ask(service, input=items, instructions="I")
    assert prompt_of(service) == "sI|sD|sS|uQ3|"


def test_a_call_goes_with_what_it_has_returned(short: Callable[..., Any]) -> None:
    def call(name: str) -> Any:
        return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}

    def result(name: str) -> Any:
        return {"type": "function_call_output", "call_id": name, "output": name.upper()}

    items = [turn(USER, "Q"), call("x"), call("y"), result("x"), result("y")]
    service = short(20)
    ask(service, input=[*items, LAST])
    assert prompt_of(service) == "a<y>|tY=y|uQ3|"
    service = short(12)
    ask(service, input=items)  # the call of the last item stays
    assert prompt_of(service) == "a<y>|tY=y|"


def test_the_whole_conversation_is_kept(short: Callable[..., Any]) -> None:
    service = short(9)
    first = ask(service, input=TALK[:3])
    assert prompt_of(service) == "aA1|uQ2|"
    second = ask(service, input="Q3", previous_response_id=first.id)
    assert prompt_of(service) == "aA|uQ3|"
    items = service.client.responses.input_items.list(second.id, order="asc").data
    assert [item.content[0].text for item in items] == ["Q1", "A1", "Q2", "A", "Q3"]


@pytest.mark.parametrize("fields", [{"truncation": "disabled"}, {"truncation": None}, {}])
def test_else_it_is_refused(short: Callable[..., Any], fields: Any) -> None:
    service = short(20)
    items = [*TALK, turn(USER, "Q" * 20 if not fields else "Q3")]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(service, input=items, **fields)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "input"
    assert not service.engine.requests


def test_text_that_nobody_counts(short: Callable[..., Any]) -> None:
    service = short(20)
    ask(service, input=[turn(USER, "x" * 10_000), LAST])
    assert prompt_of(service) == "uQ3|"
    with pytest.raises(openai.BadRequestError) as caught:
        ask(service, input=[turn(USER, "x" * 10_000)])
    assert caught.value.code == "context_length_exceeded"
