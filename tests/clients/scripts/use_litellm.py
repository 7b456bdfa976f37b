"""litellm: one function for every provider; Leadline is `openai/`, or `hosted_vllm/`."""

import json
from typing import Any

import litellm
from harness import MODEL, SERVERS, error_of, main

MESSAGES: Any = [{"role": "user", "content": "What does itertools.chain do?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]
PROVIDERS = ("openai", "hosted_vllm", "litellm_proxy", "deepseek")


def fields(provider: str = "openai", server: str = "model", **more: Any) -> dict[str, Any]:
    return {
        "model": f"{provider}/{MODEL}",
        "api_base": f"{SERVERS[server]}/v1",
        "api_key": "none",
        "max_retries": 0,
        "messages": MESSAGES,
        **more,
    }


def completion() -> None:
    for provider in PROVIDERS:
        answer = litellm.completion(**fields(provider, max_tokens=20))
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage.completion_tokens > 0


def stream() -> None:
    for provider in PROVIDERS:
        more: Any = {"max_tokens": 20, "stream": True, "stream_options": {"include_usage": True}}
        chunks = list(litellm.completion(**fields(provider, **more)))
        whole: Any = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
        assert whole.choices[0].message.content
        assert whole.usage.completion_tokens > 0


async def asynchronous() -> None:
    answer: Any = await litellm.acompletion(**fields(max_tokens=20))
    assert answer.choices[0].message.content


def reasoning() -> None:
    body = {"thinking": {"type": "enabled"}, "thinking_token_budget": 20}
    answer = litellm.completion(**fields(max_tokens=60, extra_body=body))
    assert answer.choices[0].message.reasoning_content
    answer = litellm.completion(
        **fields("hosted_vllm", max_tokens=60, reasoning_effort="low", extra_body=body)
    )
    assert answer.choices[0].message.reasoning_content


def json_schema() -> None:
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
    }
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.completion(
            **fields(provider, max_tokens=60, response_format=response_format)
        )
        assert json.loads(answer.choices[0].message.content)["city"] in ("Rome", "Oslo")


def tools() -> None:
    for stream in (False, True):
        more: Any = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
        answer: Any = litellm.completion(**fields(max_tokens=100, stream=stream, **more))
        if stream:
            answer = litellm.stream_chunk_builder(list(answer))
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")


def tool_loop() -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = litellm.completion(**fields(server="agent", messages=messages, tools=TOOLS))
    (call,) = first.choices[0].message.tool_calls
    messages += [
        first.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    second = litellm.completion(**fields(server="agent", messages=messages, tools=TOOLS))
    assert second.choices[0].message.content == "It is 21 degrees in Rome."


def text_completion() -> None:
    answer: Any = litellm.text_completion(
        model=f"text-completion-openai/{MODEL}",
        api_base=f"{SERVERS['model']}/v1",
        api_key="none",
        prompt="def f(",
        max_tokens=5,
    )
    assert answer.choices[0].text


def refusals() -> None:
    error = error_of(
        litellm.NotFoundError,
        lambda: litellm.completion(**fields() | {"model": "openai/nobody"}),
    )
    assert "nobody" in str(error)
    error_of(litellm.BadRequestError, lambda: litellm.completion(**fields(temperature=3)))
    error_of(litellm.RateLimitError, lambda: litellm.completion(**fields(server="busy")))


def failure_within_a_stream() -> None:
    for provider in ("openai", "hosted_vllm"):
        pieces: list[str] = []
        answer: Any = litellm.completion(**fields(provider, "failing", stream=True))

        def read(answer: Any = answer, pieces: Any = pieces) -> None:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in answer)

        error = error_of(Exception, read)
        assert "not finite" in str(error)
        assert "".join(pieces) == '{"days": 1'


if __name__ == "__main__":
    main(globals())
