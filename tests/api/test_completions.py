"""Text completions, with the official client and byte by byte."""

import json
from collections.abc import Callable
from typing import Any

import openai

TEXT = "\ud55c\uad6d\uc5b4 \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301\n\n!"


def test_answer_has_the_fields_of_the_specification(service: Any) -> None:
    body = service.complete().json()
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "text_completion",
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "text": "Hello, world!",
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "matched_stop": None,
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 14,
            "total_tokens": 17,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            "prompt_cache_hit_tokens": 0,
            "prompt_cache_miss_tokens": 3,
        },
        "seed": 4711,
        "system_fingerprint": service.state.fingerprint,
        "service_tier": "default",
    }


def test_a_text_prompt_begins_as_the_tokenizer_has_it(service: Any) -> None:
    service.complete("Hi")
    service.complete([5, 6])
    first, second = service.engine.requests
    assert first.prompt_ids == [
        *service.state.prompt_prefix_ids,
        *service.state.tokenizer.encode("Hi"),
    ]
    assert second.prompt_ids == [5, 6]
    assert first.params.max_tokens == second.params.max_tokens == 16


def test_several_prompts_with_several_choices_each(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: f"{request.prompt_ids} {request.params.seed}")
    body = service.complete([[5, 6], [7]], n=2, seed=3, max_tokens=100).json()
    choices = body["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    prompts = [choice["text"].rpartition(" ")[0] for choice in choices]
    assert prompts == ["[5, 6]", "[5, 6]", "[7]", "[7]"]
    seeds = [choice["text"].rpartition(" ")[2] for choice in choices]
    assert seeds[0] == seeds[2] == "3"
    assert len(set(seeds)) == 3
    assert body["usage"]["prompt_tokens"] == 3
    # A batch gives what its prompts give one by one.
    alone = service.complete([7], n=2, seed=3, max_tokens=100).json()["choices"]
    assert [choice["text"] for choice in alone] == [choice["text"] for choice in choices[2:]]


def test_streams_of_several_prompts(serve: Callable[..., Any]) -> None:
    client: openai.OpenAI = serve(text=lambda request: TEXT).client
    texts = ["", ""]
    reasons = []
    for chunk in client.completions.create(
        model="tiny", prompt=["a", "b"], stream=True, max_tokens=99
    ):
        assert chunk.object == "text_completion"
        choice = chunk.choices[0]
        texts[choice.index] += choice.text
        if choice.finish_reason:
            reasons.append(choice.finish_reason)
    assert texts == [TEXT, TEXT]
    assert reasons == ["stop", "stop"]


def test_stream_frames(serve: Callable[..., Any]) -> None:
    service = serve(text=lambda request: "ab")
    response = service.complete(stream=True, stream_options={"include_usage": True})
    *frames, done, empty = response.text.split("\n\n")
    assert (done, empty) == ("data: [DONE]", "")
    a, b, end, usage = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert [chunk["choices"][0]["text"] for chunk in (a, b, end)] == ["a", "b", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in (a, b, end)] == [None, None, "stop"]
    assert all("logprobs" in chunk["choices"][0] for chunk in (a, b, end))
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 6


async def test_async_client(async_client: openai.AsyncOpenAI) -> None:
    answer = await async_client.completions.create(model="tiny", prompt="Hi", max_tokens=5)
    assert answer.choices[0].text == "Hello"
    assert answer.choices[0].finish_reason == "length"
