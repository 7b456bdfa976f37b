"""Log-probabilities and token ids of both APIs, whole and streamed."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

MESSAGES: Any = [{"role": "user", "content": "Hi"}]
TEXT = "a\u4f60b"
FLOOR = -9999.0


def events(text: str) -> list[Any]:
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def choices_of(text: str, index: int = 0) -> list[Any]:
    """A choice's part of each chunk."""
    found = [choice for event in events(text) for choice in event["choices"]]
    return [choice for choice in found if choice["index"] == index]


def test_the_logprobs_of_a_chat(serve: Callable[..., Any]) -> None:
    client: openai.OpenAI = serve(text=lambda request: TEXT).client
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, logprobs=True, top_logprobs=4
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.refusal is None
    assert logprobs.content is not None
    tokens = [entry.token for entry in logprobs.content]
    assert tokens == ["a", "\ufffd", "\ufffd", "\ufffd", "b", "<eos>"]
    data = [bytes(entry.bytes or ()) for entry in logprobs.content]
    assert b"".join(data) == f"{TEXT}<eos>".encode()
    first = logprobs.content[0]
    assert first.logprob == -1.0
    assert first.top_logprobs[1].token == "a"
    assert [top.logprob for top in first.top_logprobs] == [-0.5, -1.0, -2.0, FLOOR]


def test_logprobs_without_top_logprobs(service: Any) -> None:
    body = service.chat(logprobs=True).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in content] == [[]] * 14
    assert service.engine.requests[0].params.num_logprobs == 0
    assert service.chat().json()["choices"][0]["logprobs"] is None


def test_the_logprobs_of_a_completion(serve: Callable[..., Any]) -> None:
    client: openai.OpenAI = serve(text=lambda request: TEXT).client
    logprobs = client.completions.create(model="tiny", prompt="Hi", logprobs=1).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", "\ufffd", "\ufffd", "\ufffd", "b", "<eos>"]
    assert logprobs.token_logprobs == [-1.0] * 6
    assert logprobs.text_offset == [0, 1, 1, 1, 2, 3]
    assert logprobs.top_logprobs is not None
    assert len(logprobs.top_logprobs[0]) == 2  # the likeliest, and the token itself
    assert logprobs.top_logprobs[0]["a"] == -1.0
    none = client.completions.create(model="tiny", prompt="Hi", logprobs=0).choices[0].logprobs
    assert none is not None
    assert none.top_logprobs is not None
    assert none.top_logprobs[0] == {"a": -1.0}


@pytest.mark.parametrize("chunk", [1, 2, 7])
@pytest.mark.parametrize("stop", [None, "wor", "\u4f60!"])
def test_a_stream_has_the_logprobs_of_the_whole(
    serve: Callable[..., Any], chunk: int, stop: str | None
) -> None:
    service = serve(text=lambda request: "Hi \u4f60, wo\u4f60 world", chunk=chunk)
    fields = {"stop": stop, "return_token_ids": True}
    whole = service.chat(logprobs=True, top_logprobs=2, **fields).json()["choices"][0]
    parts = choices_of(service.chat(logprobs=True, top_logprobs=2, stream=True, **fields).text)
    content: list[Any] = []
    token_ids: list[int] = []
    text = ""
    for part in parts:
        content += (part["logprobs"] or {"content": []})["content"]
        token_ids += part.get("token_ids", [])
        text += part["delta"].get("content", "")
        # A chunk tells of the tokens whose text it has, or had to wait for.
        shown = b"".join(bytes(entry["bytes"]) for entry in content)
        assert text.encode() == shown[: len(text.encode())] or part["finish_reason"]
    assert content == whole["logprobs"]["content"]
    assert token_ids == whole["token_ids"]
    assert text == whole["message"]["content"]
    whole = service.complete(logprobs=2, max_tokens=99, **fields).json()["choices"][0]
    parts = choices_of(service.complete(logprobs=2, max_tokens=99, stream=True, **fields).text)
    for name, values in whole["logprobs"].items():
        streamed = [value for part in parts if part["logprobs"] for value in part["logprobs"][name]]
        assert streamed == values
    assert len(whole["token_ids"]) == len(whole["logprobs"]["tokens"])


def test_logprobs_are_cut_at_the_token_that_completes_a_stop_string(
    serve: Callable[..., Any],
) -> None:
    for chunk in (1, 5, 100):
        body = serve(chunk=chunk).chat(logprobs=True, stop="o, w").json()
        content = body["choices"][0]["logprobs"]["content"]
        assert "".join(entry["token"] for entry in content) == "Hello, w"
        assert body["usage"]["completion_tokens"] == 8
        assert body["choices"][0]["stop_reason"] == "o, w"


def test_token_ids_instead_of_tokens(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "a")
    body = service.complete(
        [5, 6], logprobs=1, return_tokens_as_token_ids=True, return_token_ids=True
    ).json()
    choice = body["choices"][0]
    assert choice["prompt_token_ids"] == [5, 6]
    names = [f"token_id:{token_id}" for token_id in choice["token_ids"]]
    assert choice["logprobs"]["tokens"] == names
    assert names[0] in choice["logprobs"]["top_logprobs"][0]


@pytest.mark.parametrize("stream", [False, True])
def test_token_ids_of_prompt_and_output(serve: Callable[..., Any], stream: bool) -> None:
    service = serve(text=lambda request: "ab")
    response = service.chat(return_token_ids=True, n=2, stream=stream)
    prompt_ids = service.engine.requests[0].prompt_ids
    output_ids = [*service.state.tokenizer.encode("ab"), *service.state.defaults.eos_token_ids]
    if not stream:
        body = response.json()
        assert body["prompt_token_ids"] == prompt_ids
        assert [choice["token_ids"] for choice in body["choices"]] == [output_ids] * 2
        return
    told = [event.get("prompt_token_ids") for event in events(response.text)]
    assert told[0] == prompt_ids
    assert not any(told[1:])
    for index in range(2):
        parts = choices_of(response.text, index)
        told_ids = [token_id for part in parts for token_id in part.get("token_ids", [])]
        assert told_ids == output_ids
    text = service.complete([7], return_token_ids=True, stream=True).text
    assert [part.get("prompt_token_ids") for part in choices_of(text)] == [[7], None, None]


def test_prompt_logprobs(service: Any) -> None:
    body = service.complete([70, 71, 72], prompt_logprobs=1, n=2).json()
    for choice in body["choices"]:
        null, second, third = choice["prompt_logprobs"]
        assert null is None
        assert list(second) == ["71", "72"]  # the token itself, then the likeliest
        assert (second["71"]["logprob"], second["71"]["rank"]) == (-1.0, 2)
        assert (second["72"]["logprob"], second["72"]["rank"]) == (-0.5, 1)
        assert third["72"]["decoded_token"] == service.state.tokenizer.decode([72])
    first, other = service.engine.requests
    assert first.params.num_prompt_logprobs == 1
    assert other.params.num_prompt_logprobs is None
    chat = service.chat(prompt_logprobs=4).json()
    assert len(chat["prompt_logprobs"]) == chat["usage"]["prompt_tokens"]
    assert chat["prompt_logprobs"][0] is None
    assert min(entry["logprob"] for entry in chat["prompt_logprobs"][1].values()) == FLOOR
    assert "prompt_logprobs" not in service.chat().json()


def test_a_prompt_of_one_token_has_no_logprobs(service: Any) -> None:
    body = service.complete([70], prompt_logprobs=1, n=2).json()
    assert [choice["prompt_logprobs"] for choice in body["choices"]] == [[None], [None]]


def test_an_echo(service: Any) -> None:
    client: openai.OpenAI = service.client
    prompt = "\u4f60 <eos>?"  # special tokens that the caller wrote are part of the text
    answer = client.completions.create(model="tiny", prompt=prompt, echo=True, max_tokens=5)
    assert answer.choices[0].text == f"{prompt}Hello"
    assert answer.choices[0].logprobs is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert service.complete([*b"Hi"], echo=True).json()["choices"][0]["text"]


@pytest.mark.parametrize("num_choices", [1, 3])
def test_an_echo_has_the_logprobs_of_the_prompt(service: Any, num_choices: int) -> None:
    fields = {"echo": True, "logprobs": 1, "max_tokens": 2, "n": num_choices}
    body = service.complete("\u4f60?", **fields).json()
    text = service.complete("\u4f60?", stream=True, **fields).text
    for index, choice in enumerate(body["choices"]):
        logprobs = choice["logprobs"]
        assert logprobs["tokens"] == ["<bos>", "\ufffd", "\ufffd", "\ufffd", "?", "H", "e"]
        assert logprobs["token_logprobs"] == [None, *[-1.0] * 6]
        assert logprobs["top_logprobs"][0] is None
        assert logprobs["top_logprobs"][4]["?"] == -1.0
        assert logprobs["text_offset"] == [0, 0, 0, 0, 1, 2, 3]
        assert choice["text"] == "\u4f60?He"
        parts = choices_of(text, index)
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[0]["text"] == "\u4f60?"
        for name, values in logprobs.items():
            told = [value for part in parts if part["logprobs"] for value in part["logprobs"][name]]
            assert told == values


def test_choices_that_come_before_the_first_wait_for_the_prompt_s_logprobs(
    serve: Callable[..., Any],
) -> None:
    fields = {"echo": True, "logprobs": 0, "n": 3, "max_tokens": 2, "stream": True}
    text = serve(leader_delay_s=0.05).complete(["ab", "c"], **fields).text
    for index in range(6):
        first = choices_of(text, index)[0]
        assert first["text"] == ("ab" if index < 3 else "c")
        assert first["logprobs"]["token_logprobs"] == [None, *[-1.0] * len(first["text"])]


@pytest.mark.parametrize("num_choices", [1, 2])
def test_a_prompt_is_scored_without_an_answer(service: Any, num_choices: int) -> None:
    fields = {"echo": True, "logprobs": 1, "max_tokens": 0, "n": num_choices}
    body = service.complete("Hi", **fields).json()
    assert [choice["text"] for choice in body["choices"]] == ["Hi"] * num_choices
    assert all(choice["finish_reason"] == "length" for choice in body["choices"])
    assert body["choices"][0]["logprobs"]["tokens"] == ["<bos>", "H", "i"]
    assert body["usage"]["completion_tokens"] == 0
    assert service.engine.requests[0].params.max_tokens == 1
    parts = choices_of(service.complete("Hi", stream=True, **fields).text)
    assert [part["text"] for part in parts] == ["Hi", ""]
    assert parts[-1]["finish_reason"] == "length"
    assert parts[0]["logprobs"] == body["choices"][0]["logprobs"]


def test_special_tokens_may_be_shown(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "a<bos>b")
    assert service.complete().json()["choices"][0]["text"] == "ab"
    shown = service.complete(skip_special_tokens=False).json()["choices"][0]["text"]
    assert shown == "a<bos>b"
    fields = {"skip_special_tokens": False, "include_stop_str_in_output": True}
    assert service.complete(**fields).json()["choices"][0]["text"] == "a<bos>b<eos>"
