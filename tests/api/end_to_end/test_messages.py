"""Anthropic's client, and tokens in and out, with the built-in model from a real server."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

WAIT_S = 120.0  # generous: a starved machine is no failure
QUESTION = "What does `itertools.chain` do?"
BODY: Any = {
    "model": "demo",
    "max_tokens": 40,
    "messages": [{"role": "user", "content": QUESTION}],
    "extra_body": {"seed": 7, "temperature": 1.0},
}
TOOL: Any = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["days"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(service: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=service.url, api_key="-", max_retries=0, timeout=WAIT_S
    ) as client:
        yield client


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_that_of_a_chat(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    message = claude.messages.create(**BODY)
    chat = client.chat.completions.create(
        model="demo", messages=BODY["messages"], max_tokens=40, temperature=1.0, seed=7
    )
    assert text_of(message) == chat.choices[0].message.content
    usage = message.usage
    assert chat.usage is not None
    num_input = usage.input_tokens
    num_input += usage.cache_creation_input_tokens or 0
    num_input += usage.cache_read_input_tokens or 0
    assert num_input == chat.usage.prompt_tokens
    assert usage.output_tokens == chat.usage.completion_tokens
    count = claude.messages.count_tokens(model="demo", messages=BODY["messages"])
    assert count.input_tokens == num_input


def test_streaming_equals_not_streaming(claude: anthropic.Anthropic) -> None:
    fields = BODY | {"thinking": {"type": "adaptive"}, "max_tokens": 60}
    whole = claude.messages.create(**fields)
    with claude.messages.stream(**fields) as stream:
        streamed = stream.get_final_message()
    assert [block.model_dump(exclude={"parsed_output"}) for block in streamed.content] == [
        block.model_dump() for block in whole.content
    ]
    assert whole.content[0].type == "thinking"
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens


def test_a_tool_that_must_be_used(claude: anthropic.Anthropic) -> None:
    choice = {"type": "tool", "name": "get_weather"}
    message = claude.messages.create(**BODY | {"tools": [TOOL], "tool_choice": choice})
    assert message.stop_reason == "tool_use"
    (block,) = message.content
    assert block.type == "tool_use"
    assert block.input["days"] in range(1, 10)


def test_an_answer_that_is_begun(claude: anthropic.Anthropic, client: openai.OpenAI) -> None:
    fields = BODY | {"extra_body": {"temperature": 0}}
    whole = text_of(claude.messages.create(**fields))
    begun = whole[: whole.index(" ", 8)]
    messages = [*BODY["messages"], {"role": "assistant", "content": begun}]
    rest = text_of(claude.messages.create(**fields | {"messages": messages}))
    # One token less could be written before; how the beginning is cut into tokens is as before.
    assert whole.removeprefix(begun) == rest[: len(whole) - len(begun)]
    chat = client.chat.completions.create(
        model="demo",
        messages=messages,
        max_tokens=40,
        temperature=0,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    assert chat.choices[0].message.content == rest


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0, "logprobs": 2},
        {"n": 2, "ignore_eos": True},
        {"stop": "a"},
        {"structured_outputs": {"regex": "[a-z]{5,9}"}},
        {"repetition_penalty": 1.3, "min_p": 0.05, "logit_bias": {"300": 5}},
    ],
)
def test_tokens_are_those_of_completions(http: httpx.Client, params: dict[str, Any]) -> None:
    prompt = http.post("/tokenize", json={"prompt": QUESTION}).json()["tokens"]
    shared = {"temperature": 1.0, "seed": 11, "max_tokens": 24} | params
    text = http.post(
        "/v1/completions",
        json={"model": "demo", "prompt": prompt, "return_token_ids": True, **shared},
    ).json()
    body: dict[str, Any] = {"token_ids": prompt, "sampling_params": shared}
    whole = http.post("/inference/v1/generate", json=body).json()
    expected = [choice["token_ids"] for choice in text["choices"]]
    assert [choice["token_ids"] for choice in whole["choices"]] == expected
    for choice, other in zip(whole["choices"], text["choices"], strict=True):
        assert choice["finish_reason"] == other["finish_reason"]
    frames = http.post("/inference/v1/generate", json=body | {"stream": True}).text.split("\n\n")
    streamed: list[list[int]] = [[] for _ in expected]
    for frame in frames[:-2]:
        for choice in json.loads(frame.removeprefix("data: "))["choices"]:
            streamed[choice["index"]] += choice["token_ids"]
    assert streamed == expected
