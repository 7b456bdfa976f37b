"""Tokens in, tokens out, over a real socket."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from leadline.engine.request import FinishReason, Grammar, GrammarKind
from leadline.server.limits import Limits

PATH = "/inference/v1/generate"
PROMPT = [5, 6, 7]


def generate(service: Any, params: dict[str, Any] | None = None, **fields: Any) -> Any:
    body = {"token_ids": PROMPT, "sampling_params": params or {}, **fields}
    return service.post(PATH, body)


def chunks_of(response: Any) -> list[dict[str, Any]]:
    *frames, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def joined(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The choices of a stream, whole."""
    whole: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            known = whole.setdefault(choice["index"], {"token_ids": [], "logprobs": []})
            assert "finish_reason" not in known
            known["token_ids"] += choice["token_ids"]
            known["logprobs"] += (choice["logprobs"] or {"content": []})["content"]
            if choice["finish_reason"] is not None:
                known |= {name: choice[name] for name in ("finish_reason", "stop_reason")}
    return whole


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"n": 3, "max_tokens": 5},
        {"logprobs": 2},
        {"logprobs": 0, "ignore_eos": False},
        {"stop": "lo"},
        {"stop": ["wor", "xx"], "include_stop_str_in_output": True},
        {"stop_token_ids": [9]},
        {"skip_special_tokens": False},
    ],
)
@pytest.mark.parametrize("text", ["Hello, world!", "\u00fc\U0001f600 \u00e9"])
def test_its_tokens_are_those_of_completions(
    serve: Callable[..., Any], params: dict[str, Any], text: str, chunk: int
) -> None:
    service = serve(chunk=chunk, text=lambda request: text)
    expected = service.complete(
        PROMPT, max_tokens=params.pop("max_tokens", 50), return_token_ids=True, **params
    ).json()
    whole = generate(service, {"max_tokens": 50, **params}).json()
    completions, generated = service.engine.requests[0], service.engine.requests[-1]
    if "n" not in params:
        assert generated.params == completions.params
    chunks = chunks_of(generate(service, {"max_tokens": 50, **params}, stream=True))
    streamed = joined(chunks)
    assert len(whole["choices"]) == len(streamed) == params.get("n", 1)
    for choice, other in zip(whole["choices"], expected["choices"], strict=True):
        assert "text" not in choice
        same = streamed[choice["index"]]
        if "n" not in params:
            assert choice["token_ids"] == other["token_ids"]
            assert choice["finish_reason"] == other["finish_reason"]
        assert choice["stop_reason"] == other["stop_reason"]
        assert same["token_ids"] == choice["token_ids"]
        assert same["finish_reason"] == choice["finish_reason"]
        assert same["stop_reason"] == choice["stop_reason"]
        logprobs = choice["logprobs"]
        assert (logprobs is None) == ("logprobs" not in params)
        if logprobs is not None:
            assert same["logprobs"] == logprobs["content"]
            names = [entry["token"] for entry in logprobs["content"]]
            assert names == [f"token_id:{token_id}" for token_id in choice["token_ids"]]
            assert {len(entry["top_logprobs"]) for entry in logprobs["content"]} == {
                params["logprobs"]
            }
    assert whole["usage"] == (expected["usage"] if "n" not in params else whole["usage"])


def test_the_answer(service: Any) -> None:
    answer = generate(service, {"prompt_logprobs": 1}, request_id="mine", model="org/alias").json()
    assert (answer["request_id"], answer["model"]) == ("mine", "org/alias")
    assert answer["seed"] == 4711
    none, *rows = answer["prompt_logprobs"]
    assert none is None
    assert [str(token_id) in row for token_id, row in zip(PROMPT[1:], rows, strict=True)]
    other = generate(service).json()
    assert other["prompt_logprobs"] is None
    assert other["model"] == "tiny"
    assert other["request_id"] != generate(service).json()["request_id"]


def test_all_of_it_reaches_the_engine(service: Any) -> None:
    params = {
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 3,
        "min_p": 0.125,
        "seed": 8,
        "logit_bias": {"5": 1.5},
        "allowed_token_ids": [5, 6],
        "bad_words": ["x"],
        "min_tokens": 2,
        "structured_outputs": {"regex": "a"},
        "truncate_prompt_tokens": 2,
        "speculative_tokens": 0,
        "deadline_s": 60,
    }
    assert generate(service, params, cache_salt="salt", priority=3).status_code == 200
    (request,) = service.engine.requests
    assert request.prompt_ids == [6, 7]
    assert (request.cache_salt, request.priority) == ("salt", 3)
    assert request.deadline_s is not None
    sampling = request.params
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.25, 3)
    assert (sampling.min_p, sampling.seed, sampling.min_tokens) == (0.125, 8, 2)
    assert sampling.logit_bias == ((5, 1.5),)
    assert sampling.grammar == Grammar(GrammarKind.REGEX, "a")
    assert sampling.max_tokens == 198  # all that there is room for


def test_usage_in_a_stream(service: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    whole = generate(service, {"n": 2}).json()
    *chunks, last = chunks_of(generate(service, {"n": 2}, stream=True, stream_options=options))
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert {chunk["request_id"] for chunk in chunks} == {last["request_id"]}
    assert all("usage" not in chunk for chunk in chunks_of(generate(service, stream=True)))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"sampling_params": {}}, "token_ids"),
        ({"token_ids": PROMPT}, "sampling_params"),
        ({"token_ids": [], "sampling_params": {}}, "token_ids"),
        ({"token_ids": "text", "sampling_params": {}}, "token_ids"),
        ({"token_ids": [-1], "sampling_params": {}}, "token_ids[0]"),
        ({"token_ids": [10**6], "sampling_params": {}}, "token_ids"),
        ({"token_ids": [5] * 300, "sampling_params": {}}, "token_ids"),
        ({"sampling_params": {"temperature": 3}}, "sampling_params.temperature"),
        ({"sampling_params": {"max_tokens": 0}}, "sampling_params.max_tokens"),
        ({"sampling_params": {"stream": True}}, "sampling_params.stream"),
        ({"sampling_params": {"model": "x"}}, "sampling_params.model"),
        ({"sampling_params": {"rid": "x"}}, "sampling_params.rid"),
        (
            {"sampling_params": {"return_token_ids": False}},
            "sampling_params.return_token_ids",
        ),
        ({"sampling_params": {"logprob_token_ids": [1]}}, "logprob_token_ids"),
        ({"sampling_params": {"prompt_logprobs": 1}, "stream": True}, "prompt_logprobs"),
        ({"sampling_params": {}, "stream_options": {}}, "stream_options"),
        ({"sampling_params": {}, "features": {"mm_hashes": {}}}, "features"),
        ({"sampling_params": {}, "kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"sampling_params": {}, "request_id": "x" * 513}, "request_id"),
        ({"sampling_params": {}, "model": "gpt-5"}, "model"),
    ],
)
def test_what_is_refused_is_named(service: Any, body: dict[str, Any], param: str) -> None:
    if "token_ids" not in body and param != "token_ids":
        body = {"token_ids": PROMPT, **body}
    response = service.post(PATH, body)
    assert response.status_code == (404 if param == "model" else 400)
    assert response.json()["error"]["param"] == param
    assert not service.engine.requests


def test_unknown_fields_are_told(service: Any) -> None:
    response = generate(service, {"sparkle": 1}, glitter=2)
    assert response.headers["x-ignored-fields"] == "glitter, sampling_params.sparkle"
    service.state.is_strict = True
    assert generate(service, {"sparkle": 1}).status_code == 400


def test_a_limit_of_the_prompt(serve: Callable[..., Any]) -> None:
    service = serve(state={"limits": Limits(prompt_tokens=2)})
    assert generate(service).json()["error"]["param"] == "token_ids"


def test_a_failure_within_the_stream(serve: Callable[..., Any]) -> None:
    service = serve(failure=FinishReason.ERROR)
    body = {"token_ids": PROMPT, "sampling_params": {}, "stream": True}
    received: list[bytes] = []
    with (
        service.http.stream("POST", PATH, json=body) as response,
        pytest.raises(httpx.RemoteProtocolError),  # no clean end
    ):
        received.extend(response.iter_raw())
    assert response.status_code == 200
    *_, last, end = b"".join(received).split(b"\n\n")
    assert end == b""
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_error"
    assert generate(service).status_code == 500
