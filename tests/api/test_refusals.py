"""Whatever is refused is refused in OpenAI's envelope, and reaches no engine."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest

from leadline.engine.admission import check_fits
from leadline.engine.errors import InvalidRequestError, PromptTooLongError, QueueFullError
from leadline.engine.executor.base import Capacity
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.server.limits import Limits

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
JSON = {"content-type": "application/json"}


def check(response: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    """The error of a response, of which the envelope and the headers are as they must be."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert len(response.content) < 2000
    body = response.json()
    assert list(body) == ["error"]
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["code"] == code
    return error


@pytest.mark.parametrize("path", [CHAT, TEXT])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"a":1} x',
        b"\xff",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b'{"seed":' + b"1" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object(service: Any, path: str, body: bytes) -> None:
    check(service.post(path, body), 400, "invalid_json")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"content-type": "text/plain"}, "unsupported_content_type"),
        ({}, "unsupported_content_type"),
        ({**JSON, "content-encoding": "gzip"}, "unsupported_content_encoding"),
    ],
)
def test_what_is_not_sent_as_json(service: Any, headers: dict[str, str], code: str) -> None:
    check(service.http.post(CHAT, content=b"{}", headers=headers), 415, code)


def test_json_may_name_its_character_set(service: Any) -> None:
    body = b'{"model": "tiny", "prompt": "\xed\x95\x9c\\u0000"}'
    headers = {"content-type": "application/json; charset=utf-8"}
    assert service.http.post(TEXT, content=body, headers=headers).status_code == 200


def test_a_body_beyond_the_limit(service: Any) -> None:
    service.state.limits = Limits(body_bytes=1000)
    check(service.post(TEXT, b"x" * 1001), 413, "request_too_large")
    chunks = iter([b"x" * 500] * 3)  # sent without a Content-Length
    check(service.http.post(TEXT, content=chunks, headers=JSON), 413, "request_too_large")
    assert service.complete().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/v1/nowhere", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/v1/models/gpt-5", 404, "model_not_found"),
    ],
)
def test_what_is_not_there(service: Any, method: str, path: str, status: int, code: str) -> None:
    response = service.http.request(method, path)
    check(response, status, code)
    assert ("allow" in response.headers) == (status == 405)


def test_all_methods_of_a_path_are_told_though_it_has_several_routes(service: Any) -> None:
    response = service.http.put("/v1/responses/resp_1")
    check(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "DELETE, GET, HEAD"


def test_strict_servers_refuse_fields_that_nobody_knows(service: Any) -> None:
    fields: Any = {"guided_jsn": {}, "stream_options": None}
    answer = service.chat(**fields)
    assert answer.headers["x-ignored-fields"] == "guided_jsn"
    service.state.is_strict = True
    error = check(service.chat(**fields), 400, "unknown_parameter")
    assert error["param"] == "guided_jsn"
    nested = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi", "nmae": "x"}]
    error = check(service.chat(messages=nested), 400, "unknown_parameter")
    assert error["param"] == "messages[1].nmae"
    assert "did you mean 'messages.name'?" in error["message"]
    assert service.chat().status_code == 200


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_another_model(service: Any, path: str) -> None:
    body = {"model": "gpt-5", "messages": MESSAGES, "prompt": "x"}
    error = check(service.post(path, body), 404, "model_not_found")
    assert error["param"] == "model"
    assert "tiny" in error["message"]


def test_no_model(service: Any) -> None:
    error = check(service.post(TEXT, {"prompt": "x"}), 400, "missing_required_parameter")
    assert error["param"] == "model"


def test_a_wrong_value_is_named_and_not_echoed_at_length(service: Any) -> None:
    assert check(service.chat(n=0), 400, "invalid_value")["param"] == "n"
    assert check(service.chat(stop="x" * 2_000_000), 400, "invalid_value")["param"] == "stop"
    assert check(service.chat(user="u", store=True), 400, "unsupported_parameter")


def test_a_context_that_is_too_long(service: Any) -> None:
    error = check(service.chat("x" * 300), 400, "context_length_exceeded")
    assert "maximum context length is 200 tokens" in error["message"]
    assert error["param"] == "messages"
    error = check(service.complete("xyz", max_tokens=197), 400, "context_length_exceeded")
    assert "201" in error["message"]
    assert service.complete("xyz", max_tokens=196).status_code == 200
    check(service.complete([5] * 200), 400, "context_length_exceeded")
    check(service.complete("x" * 5_000_000), 400, "context_length_exceeded")
    assert len(service.engine.requests) == 1


WORDS = re.compile(
    r"maximum context length is (\d+) tokens.* you requested (\d+) tokens"
    r"(?: or more)? \((\d+)(?: or more)? in the prompt, (\d+)(?: or more)? for the answer\)"
)


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "expected"),
    [
        ("xyz", 300, (200, 304, 4, 300)),  # with the token for the beginning
        ([5] * 250, 1, (200, 251, 250, 1)),
        ("x" * 5_000_000, 1, (200, 19533, 19532, 1)),
    ],
)
def test_clients_find_the_numbers_in_the_message(
    service: Any, prompt: Any, max_tokens: int, expected: tuple[int, ...]
) -> None:
    refused = service.complete(prompt, max_tokens=max_tokens)
    error = check(refused, 400, "context_length_exceeded")
    found = WORDS.search(error["message"])
    assert found is not None, error["message"]
    assert tuple(map(int, found.groups())) == expected


def test_the_engine_says_it_in_the_same_words() -> None:
    params = SamplingParams(seed=0, max_tokens=9)
    request = EngineRequest(request_id="r", prompt_ids=[1] * 5, params=params, arrival_s=0.0)
    capacity = Capacity(num_pages=9, page_size=4, max_model_len=12, max_num_seqs=1)
    with pytest.raises(PromptTooLongError) as caught:
        check_fits(request, capacity)
    found = WORDS.search(str(caught.value))
    assert found is not None
    assert tuple(map(int, found.groups())) == (12, 14, 5, 9)


def test_the_default_of_max_tokens_shrinks_to_the_room(service: Any) -> None:
    assert service.complete([5] * 195).status_code == 200
    assert service.engine.requests[0].params.max_tokens == 5


def test_token_ids_that_are_no_tokens(service: Any) -> None:
    size = service.state.tokenizer.vocab_size
    assert check(service.complete([size]), 400, "invalid_value")["param"] == "prompt"
    assert check(service.complete([0, -1]), 400, "invalid_value")
    error = check(service.complete(stop_token_ids=[size]), 400, "invalid_value")
    assert error["param"] == "stop_token_ids"
    assert service.complete([size - 1]).status_code == 200


def test_an_empty_prompt_without_a_beginning(serve: Callable[..., Any]) -> None:
    service = serve(state={"prompt_prefix_ids": ()})
    assert check(service.complete(""), 400, "invalid_value")["param"] == "prompt"
    assert service.engine.requests == []


def test_a_chat_that_the_template_refuses(service: Any) -> None:
    error = check(service.chat("refuse"), 400, "invalid_value")
    assert "no such chat" in error["message"]
    assert error["param"] == "messages"


def test_a_model_without_a_template(serve: Callable[..., Any]) -> None:
    service = serve(state={"template": None})
    error = check(service.chat(), 400, "no_chat_template")
    assert "/v1/completions" in error["message"]
    assert service.complete().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (PromptTooLongError("9 tokens; allowed: 8", param="x"), 400, "context_length_exceeded"),
        (InvalidRequestError("top_k is odd", param="top_k"), 400, "invalid_value"),
        (QueueFullError("64 wait already"), 429, "rate_limit_exceeded"),
    ],
)
def test_what_the_engine_refuses(
    serve: Callable[..., Any], stream: bool, refusal: Exception, status: int, code: str
) -> None:
    response = serve(refusal=refusal).chat(stream=stream)
    assert str(refusal) in check(response, status, code)["message"]
    assert ("retry-after" in response.headers) == (status == 429)


@pytest.mark.parametrize(("room_in_s", "header"), [(0.0, "1"), (0.2, "1"), (12.1, "13")])
def test_a_full_queue_says_when_to_come_back(
    serve: Callable[..., Any], room_in_s: float, header: str
) -> None:
    response = serve(refusal=QueueFullError("full", retry_after_s=room_in_s)).chat()
    assert response.headers["retry-after"] == header


@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_server_tells_nothing_of_its_inside(
    serve: Callable[..., Any], stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    response = serve(refusal=KeyError("/secret/path")).chat(stream=stream)
    error = check(response, 500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in error["message"]
    assert "/secret/path" in caplog.text


def test_the_client_s_exceptions(service: Any) -> None:
    client: openai.OpenAI = service.client
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert not_found.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_hot:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=3)
    assert (too_hot.value.param, too_hot.value.type) == ("temperature", "invalid_request_error")
    assert too_hot.value.request_id
