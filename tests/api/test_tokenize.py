"""`/tokenize` and `/detokenize`."""

from collections.abc import Callable
from typing import Any

import pytest

MESSAGES = [{"role": "user", "content": "Hi"}]


def tokens_of(service: Any, **body: Any) -> Any:
    response = service.post("/tokenize", body)
    assert response.status_code == 200, response.text
    return response.json()


def text_of(service: Any, tokens: list[int]) -> str:
    response = service.post("/detokenize", {"tokens": tokens})
    assert response.status_code == 200, response.text
    assert set(response.json()) == {"prompt"}
    text: str = response.json()["prompt"]
    return text


def test_a_text(service: Any) -> None:
    body = tokens_of(service, model="tiny", prompt="H\u00e9 <bos>!")
    assert set(body) == {"count", "max_model_len", "tokens"}
    assert body["count"] == len(body["tokens"])
    assert body["max_model_len"] == 200
    assert text_of(service, body["tokens"]) == "<bos>H\u00e9 <bos>!"
    assert not service.engine.requests


def test_special_tokens_can_be_left_out(service: Any) -> None:
    with_bos = tokens_of(service, prompt="Hi")["tokens"]
    without = tokens_of(service, prompt="Hi", add_special_tokens=False)["tokens"]
    assert with_bos == [*service.state.prompt_prefix_ids, *without]
    assert tokens_of(service, prompt="", add_special_tokens=False)["tokens"] == []


def test_the_strings_of_tokens(service: Any) -> None:
    body = tokens_of(service, prompt="Hi\u00e9", return_token_strs=True)
    assert body["token_strs"] == ["<bos>", "H", "i", "\ufffd", "\ufffd"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"add_generation_prompt": False},
        {"chat_template_kwargs": {"thinking": True}},
        {"add_special_tokens": False},
    ],
)
def test_a_conversation_has_the_tokens_that_chat_completions_sends(
    service: Any, extra: dict[str, Any]
) -> None:
    body = tokens_of(service, messages=MESSAGES, **extra)
    sent = {name: value for name, value in extra.items() if name != "add_special_tokens"}
    service.chat(**sent)
    assert body["tokens"] == service.engine.requests[0].prompt_ids
    assert text_of(service, body["tokens"]).startswith("<bos>user: Hi\n")


def test_long_texts_are_counted_too(service: Any) -> None:
    assert tokens_of(service, prompt="x" * 30_000, return_token_strs=True)["count"] == 30_001


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "x", "messages": MESSAGES}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"prompt": "x", "tools": []}, "tools"),
        ({"prompt": "x" * 60_000}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
        ({"messages": MESSAGES, "chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x"),
        ({"messages": [{"role": "user", "content": "refuse"}]}, "messages"),
    ],
)
def test_what_cannot_be_tokenised(service: Any, body: Any, param: str) -> None:
    response = service.post("/tokenize", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "tokens"),
        ({"tokens": "x"}, "tokens"),
        ({"tokens": [1, -1]}, "tokens[1]"),
        ({"tokens": [1, 2, 100_000]}, "tokens[2]"),
        ({"tokens": [2**70]}, "tokens[0]"),
        ({"tokens": [True]}, "tokens[0]"),
        ({"tokens": [1] * 201}, "tokens"),
    ],
)
def test_what_cannot_be_detokenised(service: Any, body: Any, param: str) -> None:
    response = service.post("/detokenize", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_models_and_unknown_fields(service: Any) -> None:
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})):
        assert service.post(path, body | {"model": "org/alias"}).status_code == 200
        wrong = service.post(path, body | {"model": "other"})
        assert wrong.status_code == 404
        assert wrong.json()["error"]["code"] == "model_not_found"
        response = service.post(path, body | {"colour": 1})
        assert response.headers["x-ignored-fields"] == "colour"
        assert service.http.get(path).status_code == 405


def test_what_a_client_writes_prompts_with(service: Any, serve: Callable[..., Any]) -> None:
    info = service.http.get("/tokenizer_info").json()
    assert info["bos_token"] == "<bos>"
    assert info["eos_token"] == "<eos>"
    assert info["pad_token"] is None
    assert info["vocab_size"] == service.state.tokenizer.vocab_size
    assert info["model_max_length"] == 200
    assert "add_generation_prompt" in info["chat_template"]
    bare = serve(state={"template": None})
    assert bare.http.get("/tokenizer_info").json()["chat_template"] is None


def test_nothing_needs_the_engine(service: Any) -> None:
    service.engine.alive = False
    assert text_of(service, tokens_of(service, prompt="Hi")["tokens"]) == "<bos>Hi"
