"""Reasoning over a real socket."""

import json
from collections.abc import Callable
from typing import Any

import pytest

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def think(serve: Callable[..., Any], thinking_tokenizer: Any) -> Callable[..., Any]:
    """A service whose model says this."""

    def start(says: str, **script: Any) -> Any:
        return serve(
            text=lambda request: says,
            tokenizer=thinking_tokenizer,
            state={"tokenizer": thinking_tokenizer},
            **script,
        )

    return start


def ask(service: Any, **fields: Any) -> Any:
    return service.client.chat.completions.create(model="tiny", messages=MESSAGES, **fields)


def streamed(service: Any, **fields: Any) -> Any:
    with service.client.chat.completions.stream(
        model="tiny", messages=MESSAGES, **fields
    ) as stream:
        for _ in stream:
            pass
        return stream.get_final_completion()


THINKING = {"chat_template_kwargs": {"thinking": True}}


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize(
    ("says", "body", "reasoning", "content"),
    [
        ("Hm.</think>Yes.", THINKING, "Hm.", "Yes."),
        ("Hm.", THINKING, "Hm.", ""),
        ("<think>Hm.</think>Yes.", {}, "Hm.", "Yes."),
        ("Yes.", {}, None, "Yes."),
        ("\u00fc\U0001f600</think>\u00fc", THINKING, "\u00fc\U0001f600", "\u00fc"),
    ],
)
def test_reasoning_and_content(
    think: Callable[..., Any], says: str, body: Any, reasoning: Any, content: str, chunk: int
) -> None:
    service = think(says, chunk=chunk)
    for answer in (ask(service, extra_body=body), streamed(service, extra_body=body)):
        (choice,) = answer.choices
        assert choice.finish_reason == "stop"
        assert (choice.message.content or "") == content
        for name in ("reasoning", "reasoning_content"):
            assert getattr(choice.message, name, None) == reasoning


def test_the_chunks_of_reasoning(think: Callable[..., Any]) -> None:
    service = think("ab</think>c")
    frames = service.chat(stream=True, **THINKING).text.split("\n\n")
    deltas = [json.loads(f[6:])["choices"][0]["delta"] for f in frames if "choices" in f]
    assert deltas == [
        {"role": "assistant", "content": "", "refusal": None},
        {"reasoning_content": "a", "reasoning": "a"},
        {"reasoning_content": "b", "reasoning": "b"},
        {"content": "c"},
        {},
    ]


def test_stop_strings_do_not_end_reasoning(think: Callable[..., Any]) -> None:
    (choice,) = ask(think("a.b</think>c.d"), stop=".", extra_body=THINKING).choices
    assert (choice.message.reasoning, choice.message.content) == ("a.b", "c")


def test_a_mark_that_a_user_writes_begins_nothing(think: Callable[..., Any]) -> None:
    answer = think("Yes.").chat("What is <think>?").json()
    assert answer["choices"][0]["message"]["content"] == "Yes."


def test_text_completions_are_text(think: Callable[..., Any]) -> None:
    answer = think("a</think>b").complete("x<think>").json()
    assert answer["choices"][0]["text"] == "a</think>b"


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_reasoning_can_be_left_out(think: Callable[..., Any], chunk: int) -> None:
    service = think("Hm.</think>Yes.", chunk=chunk)
    body = {**THINKING, "include_reasoning": False, "return_token_ids": True}
    (choice,) = ask(service, extra_body=body).choices
    assert choice.message.content == "Yes."
    assert not hasattr(choice.message, "reasoning")
    frames = service.chat("Hi", stream=True, **body).text
    assert "reasoning" not in frames
    chunks = [json.loads(f.removeprefix("data: ")) for f in frames.split("\n\n")[:-2]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "Yes."
    ids = [token for choice in choices for token in choice.get("token_ids") or []]
    assert ids == choice.token_ids


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_reasoning_can_stay_in_the_content(think: Callable[..., Any], chunk: int) -> None:
    service = think("Hm.</think>Yes.", chunk=chunk)
    body = {**THINKING, "separate_reasoning": False}
    for answer in (ask(service, extra_body=body), streamed(service, extra_body=body)):
        (choice,) = answer.choices
        assert choice.message.content == "Hm.</think>Yes."
        assert not hasattr(choice.message, "reasoning")
