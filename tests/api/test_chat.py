"""Chat completions, with the official client and byte by byte."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

PATH = "/v1/chat/completions"
MESSAGES: Any = [{"role": "user", "content": "Hi"}]
PROMPT = "<bos>user: Hi\nassistant:"
NUM_PROMPT_TOKENS = len(PROMPT) - len("<bos>") + 1
TEXTS = (
    "Hello, world!",
    "\ud55c\uad6d\uc5b4 \u4e2d\u6587",
    "family: \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\u0302",
    'lines\n\nand "quotes" data: [DONE]\n\n\u2028\u2029\x85 end',
)


def events(text: str) -> list[Any]:
    """The JSON of each event; the last one is [DONE]."""
    frames = text.split("\n\n")
    assert frames[-1] == ""
    assert frames[-2] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def test_answer_has_the_fields_of_the_specification(service: Any) -> None:
    response = service.chat()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello, world!", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "matched_stop": None,
            }
        ],
        "usage": {
            "prompt_tokens": NUM_PROMPT_TOKENS,
            "completion_tokens": 14,  # the end token counts
            "total_tokens": NUM_PROMPT_TOKENS + 14,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": NUM_PROMPT_TOKENS,
        },
        "seed": 4711,
        "system_fingerprint": service.state.fingerprint,
        "service_tier": "default",
    }


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("chunk", [1, 3])
def test_stream_gives_the_text_of_the_whole(
    serve: Callable[..., Any], text: str, chunk: int
) -> None:
    service = serve(text=lambda request: text, chunk=chunk)
    client: openai.OpenAI = service.client
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert whole.choices[0].message.content == text
    stream = client.chat.completions.create(model="tiny", messages=MESSAGES, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


async def test_async_client(async_client: openai.AsyncOpenAI) -> None:
    whole = await async_client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert whole.choices[0].message.content == "Hello, world!"
    stream = await async_client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == "Hello, world!"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 14


def test_stream_frames(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "ab", num_cached_tokens=3)
    response = service.chat(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-request-id"]
    role, a, b, end, usage = events(response.text)
    assert role["object"] == "chat.completion.chunk"
    assert role["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert [chunk["choices"][0]["delta"] for chunk in (a, b, end)] == [
        {"content": "a"},
        {"content": "b"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in (a, b, end)] == [None, None, "stop"]
    assert all(chunk["usage"] is None for chunk in (role, a, b, end))
    assert usage["choices"] == []
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert usage["usage"]["completion_tokens"] == 3
    assert end["seed"] == usage["seed"] == 4711
    assert len({chunk["id"] for chunk in (role, a, b, end, usage)}) == 1


def test_usage_is_absent_from_a_stream_unless_asked_for(service: Any) -> None:
    assert not any("usage" in event for event in events(service.chat(stream=True).text))


def test_continuous_usage(service: Any) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(service.chat(stream=True, stream_options=options).text)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 14


def test_choices_have_seeds_of_their_own_and_come_in_order(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: f"seed {request.params.seed}")
    body = service.chat(n=3, seed=5).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in body["choices"]]
    assert texts[0] == "seed 5"
    assert len(set(texts)) == 3
    assert body["seed"] == 5
    assert body["usage"]["prompt_tokens"] == NUM_PROMPT_TOKENS
    assert body["usage"]["completion_tokens"] == sum(len(text) + 1 for text in texts)
    chunks = events(service.chat(n=3, seed=5, stream=True).text)
    assert chunks[0]["choices"][0]["index"] == 0
    roles = [c["choices"][0]["index"] for c in chunks if "role" in c["choices"][0]["delta"]]
    assert roles == [0, 1, 2]
    streamed = ["", "", ""]
    for chunk in chunks:
        choice = chunk["choices"][0]
        streamed[choice["index"]] += choice["delta"].get("content", "")
    assert streamed == texts


def test_stream_helper_of_the_client_with_several_choices(service: Any) -> None:
    with service.client.chat.completions.stream(model="tiny", messages=MESSAGES, n=2) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["Hello, world!"] * 2


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_stop_string_cuts_text_usage_and_reason(serve: Callable[..., Any], chunk: int) -> None:
    service = serve(chunk=chunk)
    body = service.chat(stop=["o, w", "zzz"]).json()
    assert body["choices"][0]["message"]["content"] == "Hell"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == len("Hello, w")
    streamed = events(service.chat(stop="o, w", stream=True).text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in streamed) == "Hell"
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"
    if chunk < 100:
        assert service.engine.wait_finished()[0] == "stop"


def test_text_that_only_looks_like_a_stop_string_is_not_lost(service: Any) -> None:
    body = service.chat(stop=["world?", "!!"]).json()
    assert body["choices"][0]["message"]["content"] == "Hello, world!"


def test_length(service: Any) -> None:
    body = service.chat(max_completion_tokens=5, max_tokens=3).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "Hello"


def test_half_a_character_at_the_end_is_shown_as_such(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "\ud55c\uad6d")
    body = service.chat(max_tokens=4).json()
    assert body["choices"][0]["message"]["content"] == "\ud55c\ufffd"


def test_prompt_is_the_rendered_template(service: Any) -> None:
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "?"},
    ]
    body = {"model": "tiny", "messages": messages, "chat_template_kwargs": {"thinking": True}}
    assert service.post(PATH, body).status_code == 200
    prompt = service.state.tokenizer.decode(
        service.engine.requests[0].prompt_ids, skip_special_tokens=False
    )
    assert prompt == (
        "<bos>system: Be kind.\nuser: Hi there\nassistant: Yes?\nuser: ?\nassistant:<think>"
    )


def test_defaults_are_the_checkpoints_and_the_request_wins(service: Any) -> None:
    service.chat()
    service.chat(
        temperature=0, top_p=0.5, top_k=-1, min_p=0.1, stop_token_ids=[3], ignore_eos=True, seed=-1
    )
    silent, given = (request.params for request in service.engine.requests)
    assert (silent.temperature, silent.top_p, silent.top_k, silent.min_p) == (0.6, 0.9, 0, 0.0)
    assert silent.seed == 4711
    assert silent.max_tokens == 200 - NUM_PROMPT_TOKENS
    assert silent.eos_token_ids
    assert (given.temperature, given.top_p, given.top_k, given.min_p) == (0.0, 0.5, 0, 0.1)
    assert given.stop_token_ids == (3,)
    assert given.ignore_eos
    assert given.seed == 2**64 - 1


def test_fields_that_ask_for_nothing_are_accepted(service: Any) -> None:
    response = service.chat(
        logprobs=None,
        stop=None,
        frequency_penalty=0.0,
        repetition_penalty=1.0,
        logit_bias={},
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        parallel_tool_calls=True,
        store=False,
        metadata={"a": "b"},
        user="me",
        service_tier="auto",
        min_tokens=0,
    )
    assert response.status_code == 200
    assert "x-ignored-fields" not in response.headers


def test_unknown_fields_are_named(service: Any) -> None:
    response = service.chat(**{"temprature": 1, "guided\r\nx": 1, "foo": 2})
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "temprature, foo"
    assert b'leadline:ignored_fields_total{model_name="tiny"} 3.0' in service.state.metrics.render()


def test_an_unknown_field_whose_name_cannot_be_sent_has_no_header(service: Any) -> None:
    response = service.chat(**{"a\r\nb": 1})
    assert response.status_code == 200
    assert "x-ignored-fields" not in response.headers
