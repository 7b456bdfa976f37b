"""Answers that go on with a given beginning."""

from collections.abc import Callable
from typing import Any

import pytest

from leadline.loader.chat_template import ChatTemplate

USER = {"role": "user", "content": "Hi"}
CHAT = "/v1/chat/completions"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.role == 'assistant' and m.reasoning_content %}<think>{{ m.reasoning_content }}</think>"
    "{% endif %}{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def think(serve: Callable[..., Any], thinking_tokenizer: Any) -> Callable[..., Any]:
    """A service whose model says this, and whose template shows reasoning."""

    def start(says: str, **script: Any) -> Any:
        state = {"tokenizer": thinking_tokenizer, "template": ChatTemplate(TEMPLATE, {})}
        return serve(text=lambda request: says, tokenizer=thinking_tokenizer, state=state, **script)

    return start


def ask(service: Any, last: dict[str, Any], **fields: Any) -> Any:
    messages = [USER, {"role": "assistant", **last}]
    body = {"model": "tiny", "messages": messages, **fields}
    return service.post(CHAT, body)


def prompt_of(service: Any) -> str:
    text: str = service.state.tokenizer.decode(
        service.engine.requests[-1].prompt_ids, skip_special_tokens=False
    )
    return text


@pytest.mark.parametrize(
    ("mark", "fields"),
    [
        ({}, {"continue_final_message": True}),
        ({}, {"continue_final_message": True, "add_generation_prompt": False}),
        ({"prefix": True}, {}),
        ({"partial": True}, {}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_goes_on_with_the_last_message(
    think: Callable[..., Any], mark: Any, fields: Any, stream: bool
) -> None:
    service = think("world!")
    response = ask(service, {"content": "Hello, ", **mark}, stream=stream, **fields)
    assert prompt_of(service) == "user: Hi\nassistant: Hello, "
    assert "Hello" not in response.text
    if not stream:
        assert response.json()["choices"][0]["message"]["content"] == "world!"


def test_without_being_asked_it_does_not(service: Any) -> None:
    ask(service, {"content": "Hello, ", "prefix": False})
    assert prompt_of(service).endswith("assistant: Hello, \nassistant:")


@pytest.mark.parametrize(
    ("last", "end", "says", "reasoning", "content"),
    [
        ({"content": "", "reasoning_content": "H"}, "<think>H", "m.</think>Yes", "m.", "Yes"),
        ({"reasoning": "H"}, "<think>H", "m.</think>Yes", "m.", "Yes"),
        ({"content": "Y", "reasoning_content": "H"}, "<think>H</think>Y", "es", None, "es"),
    ],
)
def test_an_answer_goes_on_after_reasoning(
    think: Callable[..., Any], last: Any, end: str, says: str, reasoning: Any, content: str
) -> None:
    service = think(says)
    message = ask(service, {**last, "prefix": True}).json()["choices"][0]["message"]
    assert prompt_of(service).endswith(end)
    assert message.get("reasoning_content") == reasoning
    assert message["content"] == content


@pytest.mark.parametrize("fields", [{}, {"logprobs": True, "return_token_ids": True, "n": 2}])
def test_an_echo_repeats_the_beginning(service: Any, fields: dict[str, Any]) -> None:
    begun = {"content": [{"type": "text", "text": "Hello, "}]}
    fields = {"echo": True, "continue_final_message": True, **fields}
    whole = ask(service, begun, **fields).json()
    assert [c["message"]["content"] for c in whole["choices"]] == ["Hello, Hello, world!"] * len(
        whole["choices"]
    )
    messages: Any = [USER, {"role": "assistant", **begun}]
    with service.client.chat.completions.create(
        model="tiny", messages=messages, stream=True, extra_body=fields
    ) as stream:
        texts: dict[int, str] = {}
        for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    assert list(texts.values()) == ["Hello, Hello, world!"] * len(texts)


def test_an_echo_repeats_nothing_of_a_user(service: Any) -> None:
    answer = service.chat("Hi", echo=True).json()
    assert answer["choices"][0]["message"]["content"] == "Hello, world!"


@pytest.mark.parametrize(
    ("messages", "fields", "param"),
    [
        (
            [USER, {"role": "assistant", "content": "x"}],
            {"continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt",
        ),
        ([USER], {"continue_final_message": True}, "messages[0]"),
        ([{**USER, "prefix": True}], {}, "messages[0]"),
        (
            [{"role": "assistant", "content": "x", "prefix": True}, USER],
            {},
            "messages[0].prefix",
        ),
        (
            [{"role": "assistant", "content": "x", "partial": True}, USER],
            {},
            "messages[0].partial",
        ),
        (
            [
                USER,
                {
                    "role": "assistant",
                    "prefix": True,
                    "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
                },
            ],
            {},
            "messages[1]",
        ),
    ],
)
def test_what_cannot_be_continued_is_refused(
    service: Any, messages: Any, fields: Any, param: str
) -> None:
    body = {"model": "tiny", "messages": messages, **fields}
    response = service.post(CHAT, body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_reasoning_that_the_template_does_not_show_is_refused(serve: Callable[..., Any]) -> None:
    service = serve(state={"template": ChatTemplate("{{ messages[-1].content }}", {})})
    response = ask(service, {"content": "x", "reasoning": "y"}, continue_final_message=True)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages"


def test_tokenize_shows_the_same_prompt(service: Any) -> None:
    messages = [USER, {"role": "assistant", "content": "Hello, "}]
    body = {"messages": messages, "continue_final_message": True}
    tokens = service.post("/tokenize", body).json()["tokens"]
    ask(service, {"content": "Hello, "}, continue_final_message=True)
    assert tokens == service.engine.requests[-1].prompt_ids


def message_of(service: Any, content: Any, **fields: Any) -> Any:
    messages = [USER, {"role": "assistant", "content": content}]
    body = {"model": "tiny", "max_tokens": 20, "messages": messages, **fields}
    return service.post("/v1/messages", body)


def test_a_message_goes_on_with_a_last_one_of_the_assistant(think: Callable[..., Any]) -> None:
    service = think("world!")
    answer = message_of(service, "Hello, ").json()
    assert prompt_of(service) == "user: Hi\nassistant: Hello, "
    assert answer["content"] == [{"type": "text", "text": "world!"}]
    count = service.post(
        "/v1/messages/count_tokens",
        {"model": "tiny", "messages": [USER, {"role": "assistant", "content": "Hello, "}]},
    )
    assert count.json()["input_tokens"] == len(service.engine.requests[-1].prompt_ids)


def test_a_message_goes_on_with_thinking(think: Callable[..., Any]) -> None:
    service = think("m.</think>Yes")
    block = {"type": "thinking", "thinking": "H", "signature": ""}
    answer = message_of(service, [block]).json()
    assert prompt_of(service).endswith("assistant: <think>H")
    assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
    assert answer["content"][0]["thinking"] == "m."


def test_thinking_cannot_come_after_a_text(think: Callable[..., Any]) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    response = message_of(think("x"), "Hello, ", thinking=thinking, max_tokens=2000)
    assert response.status_code == 400
    assert "'thinking'" in response.json()["error"]["message"]


def test_a_call_cannot_be_continued(service: Any) -> None:
    response = message_of(service, [{"type": "tool_use", "id": "t", "name": "f", "input": {}}])
    assert response.status_code == 400
    assert "tool_calls" in response.json()["error"]["message"]
