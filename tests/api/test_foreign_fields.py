"""Fields of vLLM's and SGLang's APIs: honoured, or refused by name."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from leadline.engine.request import Grammar, GrammarKind

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


def ask(service: Any, path: str, **fields: Any) -> Any:
    prompt = {"messages": MESSAGES} if path == CHAT else {"prompt": "Hi"}
    return service.post(path, {"model": "tiny", **prompt, **fields})


def text_of(service: Any) -> str:
    text: str = service.state.tokenizer.decode(
        service.engine.requests[-1].prompt_ids, skip_special_tokens=False
    )
    return text


@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({"truncate_prompt_tokens": 4}, "<bos>def"),
        ({"truncate_prompt_tokens": 4, "truncation_side": "left"}, "<bos>def"),
        ({"truncate_prompt_tokens": 4, "truncation_side": "right"}, "<bos>abc"),
        ({"truncate_prompt_tokens": 1}, "<bos>"),
        ({"truncate_prompt_tokens": 7}, "<bos>abcdef"),
        ({"truncate_prompt_tokens": 100}, "<bos>abcdef"),
        ({"truncate_prompt_tokens": -1}, "<bos>abcdef"),
        ({"truncate_prompt_tokens": None}, "<bos>abcdef"),
    ],
)
def test_a_prompt_is_cut(service: Any, fields: dict[str, Any], prompt: str) -> None:
    answer = service.complete("abcdef", echo=True, **fields).json()
    assert text_of(service) == prompt
    assert answer["choices"][0]["text"] == prompt.removeprefix("<bos>") + "Hello, world!"
    assert answer["usage"]["prompt_tokens"] == len(service.engine.requests[0].prompt_ids)


def test_token_ids_and_chats_are_cut_too(service: Any) -> None:
    service.complete([5, 6, 7, 8], truncate_prompt_tokens=2)
    assert service.engine.requests[-1].prompt_ids == [7, 8]
    service.chat("Hi", truncate_prompt_tokens=10)
    assert text_of(service) == "assistant:"


def test_a_prompt_is_cut_to_what_there_is_room_for(service: Any) -> None:
    for ask_for in (service.complete, service.chat):
        response = ask_for("x" * 500, truncate_prompt_tokens=-1, max_tokens=20)
        assert response.status_code == 200
        assert len(service.engine.requests[-1].prompt_ids) == 180


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({"regex": "a+"}, Grammar(GrammarKind.REGEX, "a+")),
        ({"ebnf": 'root ::= "a"'}, Grammar(GrammarKind.LARK, 'root ::= "a"')),
        ({"json_schema": '{"type":"null"}'}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"null"}')),
        ({"json_schema": {"type": "null"}}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"null"}')),
    ],
)
def test_what_answers_must_match(service: Any, path: str, fields: Any, grammar: Grammar) -> None:
    assert ask(service, path, **fields).status_code == 200
    assert service.engine.requests[0].params.grammar == grammar
    response = ask(service, path, **fields, guided_regex="b")
    assert response.status_code == 400
    assert ask(service, path, regex=3).json()["error"]["param"] == "regex"


@pytest.mark.parametrize(("path", "prefix"), [(CHAT, "chatcmpl-"), (TEXT, "cmpl-")])
def test_answers_have_the_id_that_is_asked_for(service: Any, path: str, prefix: str) -> None:
    assert ask(service, path, request_id="mine").json()["id"] == f"{prefix}mine"
    assert ask(service, path, rid="mine").json()["id"] == "mine"
    frames = ask(service, path, rid="mine", stream=True).text.split("\n\n")[:-2]
    assert {json.loads(frame.removeprefix("data: "))["id"] for frame in frames} == {"mine"}
    ids = {request.request_id for request in service.engine.requests}
    assert len(ids) == 3
    assert ask(service, path, rid="a", request_id="b").json()["error"]["param"] == "rid"
    assert ask(service, path, rid="x" * 513).json()["error"]["param"] == "rid"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_stop_string_can_stay(service: Any, path: str) -> None:
    (choice,) = ask(service, path, stop=", ", no_stop_trim=True).json()["choices"]
    text = choice["message"]["content"] if path == CHAT else choice["text"]
    assert text == "Hello, "


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "fields",
    [
        {"stop_regex": "a|b"},
        {"detokenize": False},
        {"logprob_token_ids": [5]},
        {"return_prompt_text": True},
        {"return_hidden_states": True},
        {"structural_tag": "{}"},
        {"custom_logit_processor": "x"},
        {"vllm_xargs": {"a": 1}},
        {"lora_path": "x"},
        {"truncate_prompt_tokens": 0},
        {"truncate_prompt_tokens": -2},
        {"truncation_side": "left"},
        {"truncation_side": "middle", "truncate_prompt_tokens": 3},
        {"rid": ""},
        {"rid": ["a", "b"]},
    ],
)
def test_what_is_not_honoured_is_refused_by_name(
    service: Any, path: str, fields: dict[str, Any]
) -> None:
    response = ask(service, path, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == next(iter(fields))
    assert not service.engine.requests


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_values_that_ask_for_nothing_are_taken(serve: Callable[..., Any], path: str) -> None:
    service = serve(state={"is_strict": True})
    harmless = {"stop_regex": None, "detokenize": True, "return_prompt_text": False}
    assert ask(service, path, **harmless, logprob_token_ids=[]).status_code == 200
