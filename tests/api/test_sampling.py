"""What a request asks of the engine, and how the answer tells where it ended."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from leadline.engine.errors import EngineDeadError, EngineError, InvalidRequestError
from leadline.engine.messages import EngineStats
from leadline.engine.request import (
    FinishReason,
    Grammar,
    GrammarKind,
    SpeculationCounts,
)
from leadline.loader.generation_config import GenerationConfig

MESSAGES: Any = [{"role": "user", "content": "Hi"}]


def events(text: str) -> list[Any]:
    frames = text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def refusal(response: Any, param: str, code: str = "invalid_value") -> str:
    """The message of a refusal that names a field."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    return str(error["message"])


def test_every_field_reaches_the_engine(service: Any) -> None:
    client: openai.OpenAI = service.client
    client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"5": 100, "7": -1},
        extra_body={
            "repetition_penalty": 1.25,
            "allowed_token_ids": [1, 2],
            "bad_words": ["ab", " c"],
            "min_tokens": 3,
            "ignore_eos": True,
            "priority": -4,
            "deadline_s": 30,
            "cache_salt": "salt",
        },
    )
    (request,) = service.engine.requests
    params = request.params
    encode = service.state.tokenizer.encode
    assert (params.frequency_penalty, params.presence_penalty) == (0.5, -0.5)
    assert params.repetition_penalty == 1.25
    assert params.logit_bias == ((5, 100.0), (7, -1.0))
    assert params.allowed_token_ids == (1, 2)
    assert params.bad_words_ids == (tuple(encode("ab")), tuple(encode("c")))
    assert (params.min_tokens, params.ignore_eos) == (3, True)
    assert (params.num_logprobs, params.num_prompt_logprobs) == (None, None)
    assert (request.priority, request.cache_salt) == (-4, "salt")
    assert request.deadline_s == pytest.approx(request.arrival_s + 30)
    assert (request.leader_id, params.thinking, params.grammar) == (None, None, None)


def test_a_silent_request_asks_for_nothing(serve: Callable[..., Any]) -> None:
    defaults = GenerationConfig(repetition_penalty=1.05)
    service = serve(state={"defaults": defaults, "deadline_s": 5.0})
    service.complete()
    (request,) = service.engine.requests
    params = request.params
    assert (params.frequency_penalty, params.presence_penalty) == (0.0, 0.0)
    assert (params.repetition_penalty, params.min_tokens) == (1.05, 0)
    assert (params.logit_bias, params.bad_words_ids, params.allowed_token_ids) == ((), (), None)
    assert request.priority == 0
    assert request.deadline_s == pytest.approx(request.arrival_s + 5)


def test_callers_are_told_apart_by_a_hash_of_their_key(service: Any) -> None:
    service.chat()
    for key in ("one", "two"):
        headers = {"authorization": f"Bearer {key}", "x-vllm-priority": "9"}
        body = {"model": "tiny", "messages": MESSAGES, "priority": 2 if key == "two" else None}
        service.post("/v1/chat/completions", body, headers=headers)
    nobody, one, two = service.engine.requests
    assert nobody.tenant == ""
    assert len({one.tenant, two.tenant, ""}) == 3
    assert (one.priority, two.priority) == (9, 2)
    response = service.post(
        "/v1/completions", {"model": "tiny", "prompt": "x"}, headers={"x-vllm-priority": "high"}
    )
    assert "X-Vllm-Priority" in refusal(response, "priority")


def test_requests_name_their_session(service: Any) -> None:
    service.chat()
    body = {"model": "tiny", "messages": MESSAGES, "n": 2}
    for session in ("a", "a", "b"):
        service.post("/v1/chat/completions", body, headers={"X-Session-ID": session})
    nobody, *named = [request.session_id for request in service.engine.requests]
    assert nobody == ""
    assert len(set(named[:4])) == len(set(named[4:])) == 1
    assert named[0] != named[4]


def test_the_choices_of_a_prompt_follow_the_first(service: Any) -> None:
    service.complete([[5, 6], [7]], n=3)
    requests = sorted(service.engine.requests, key=lambda request: request.request_id)
    leaders = [requests[0].request_id, requests[3].request_id]
    assert [request.leader_id for request in requests] == [
        *(None, leaders[0], leaders[0], None, leaders[1], leaders[1])
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"05": 1}}, "logit_bias"),
        ({"logit_bias": {"258": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"allowed_token_ids": [258]}, "allowed_token_ids"),
        ({"min_tokens": 11, "max_tokens": 10}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"logprobs": 21}, "logprobs"),
        ({"deadline_s": 0}, "deadline_s"),
    ],
)
def test_a_bad_value_is_refused_by_name(service: Any, fields: Any, param: str) -> None:
    message = refusal(service.complete(**fields), param)
    assert param.partition("[")[0] in message
    assert service.engine.requests == []


def test_top_logprobs_need_logprobs(service: Any) -> None:
    refusal(service.chat(top_logprobs=2), "top_logprobs")
    refusal(service.chat(logprobs=True, top_logprobs=21), "top_logprobs")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "text", "stop_reason"),
    [
        ({}, "Hello, world!", None),
        ({"stop": ["or", "zz"]}, "Hello, w", "or"),
        ({"stop": "or", "include_stop_str_in_output": True}, "Hello, wor", "or"),
        ({"stop": "o", "min_tokens": 5}, "Hello, w", "o"),
        ({"stop": "Hello", "min_tokens": 5}, "Hello, world!", None),
        ({"stop_token_ids": [257]}, "Hello, world!", 257),
        ({"max_tokens": 5}, "Hello", None),
    ],
)
def test_where_a_text_ended(
    service: Any, fields: Any, text: str, stop_reason: Any, stream: bool
) -> None:
    response = service.chat(stream=stream, **fields)
    if stream:
        chunks = [event["choices"][0] for event in events(response.text)]
        assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == text
        assert chunks[-1]["stop_reason"] == stop_reason
    else:
        (choice,) = response.json()["choices"]
        assert choice["message"]["content"] == text
        assert choice["stop_reason"] == stop_reason


def test_what_drafts_did_is_told(serve: Callable[..., Any], service: Any) -> None:
    counts = SpeculationCounts()
    counts.count(2, 1)
    speculating = serve(speculation=counts)
    expected = {
        "mean_acceptance_length": 2.0,
        "draft_acceptance_rate": 0.5,
        "acceptance_histogram": [0, 2],
        "num_spec_steps": 2,
        "num_accepted_draft_tokens": 2,
        "num_draft_tokens": 4,
        "num_accepted_tokens_per_pos": [2, 0],
    }
    body = speculating.chat(n=2).json()
    assert body["metrics"] == {"speculative_decoding": expected}
    chunks = events(speculating.complete(n=2, stream=True).text)
    told = [chunk.get("metrics") for chunk in chunks]
    assert told[-1] == {"speculative_decoding": expected}
    assert not any(told[:-1])
    assert "metrics" not in service.chat().json()


@pytest.mark.parametrize("stream", [False, True])
def test_what_drafts_did_before_a_stop_string(serve: Callable[..., Any], stream: bool) -> None:
    counts = SpeculationCounts()
    counts.count(1, 1)
    service = serve(speculation=counts, stats=EngineStats(num_drafts=5), chunk=3)
    response = service.chat(stop="lo", stream=stream, logprobs=True)
    if stream:
        chunks = events(response.text)
        content = [c["choices"][0]["delta"].get("content", "") for c in chunks]
        assert "".join(content) == "Hel"
        metrics, ended = chunks[-1]["metrics"], chunks[-1]["choices"][0]["finish_reason"]
    else:
        body = response.json()
        assert body["choices"][0]["message"]["content"] == "Hel"
        assert len(body["choices"][0]["logprobs"]["content"]) == 5
        metrics, ended = body["metrics"], body["choices"][0]["finish_reason"]
    assert metrics["speculative_decoding"]["num_accepted_draft_tokens"] == 1
    assert ended == "stop"
    assert service.engine.wait_finished() == [FinishReason.STOP]


DEADLINE = "the deadline of 3 s has passed"


@pytest.mark.parametrize(
    ("fields", "error", "status", "code"),
    [
        ({"deadline_s": 3}, DEADLINE, 504, "deadline_exceeded"),
        ({"deadline_s": 3}, None, 503, "aborted"),
        ({}, "the engine has been shut down", 503, "aborted"),
    ],
)
def test_a_deadline_that_has_passed(
    serve: Callable[..., Any], fields: Any, error: str | None, status: int, code: str
) -> None:
    service = serve(ends=False, failure=FinishReason.ABORT, error=error)
    response = service.complete(**fields)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert (response.headers.get("x-should-retry") == "false") == (status == 504)


def test_a_deadline_that_passes_within_a_stream(serve: Callable[..., Any]) -> None:
    service = serve(ends=False, failure=FinishReason.ABORT, error=DEADLINE)
    stream = service.client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, extra_body={"deadline_s": 3}
    )
    with pytest.raises(openai.APIError, match=DEADLINE) as caught:
        list(stream)
    assert caught.value.code == "deadline_exceeded"


class Checker:
    """Refuses every grammar but one."""

    def __init__(self) -> None:
        self.seen: list[Grammar] = []

    async def check(self, grammar: Grammar) -> None:
        self.seen.append(grammar)
        if grammar.text != "good":
            raise InvalidRequestError("no such regex", param="structured_outputs")


def test_a_grammar_is_checked_before_the_engine_gets_it(
    serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def grammar_of(response_format: Any, structured_outputs: Any) -> Grammar:
        return Grammar(kind=GrammarKind.REGEX, text=structured_outputs.regex)

    monkeypatch.setattr("leadline.server.sampling_types.grammar_of", grammar_of)
    checker = Checker()
    service = serve(state={"grammars": checker})
    assert service.chat(structured_outputs={"regex": "good"}).status_code == 200
    (request,) = service.engine.requests
    assert request.params.grammar == Grammar(kind=GrammarKind.REGEX, text="good")
    message = refusal(
        service.chat(structured_outputs={"regex": "["}), "structured_outputs", "invalid_grammar"
    )
    assert message == "no such regex"
    assert len(service.engine.requests) == 1
    assert len(checker.seen) == 2


def test_cached_pages_are_forgotten(service: Any) -> None:
    service.engine.num_cached_pages = 12
    assert service.http.post("/reset_prefix_cache").json() == {"num_pages": 12}
    assert service.http.post("/reset_prefix_cache").json() == {"num_pages": 0}


@pytest.mark.parametrize(
    ("error", "status"), [(EngineDeadError("gone"), 503), (EngineError("odd"), 500)]
)
def test_cached_pages_of_an_engine_that_fails(
    serve: Callable[..., Any], error: EngineError, status: int
) -> None:
    assert serve(refusal=error).http.post("/reset_prefix_cache").status_code == status
