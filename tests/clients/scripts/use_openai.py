"""The official Python library, majors 2 and 3: what its documentation shows."""

import json
from typing import Any, Literal

import openai
from harness import MODEL, SERVERS, error_of, main
from pydantic import BaseModel, Field

MESSAGES: Any = [{"role": "user", "content": "What does itertools.chain do?"}]
QUESTION = "What does itertools.chain do?"


class Weather(BaseModel, extra="forbid"):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]
    days: int = Field(ge=1, le=9)


WEATHER_TOOL: Any = openai.pydantic_function_tool(Weather, name="get_weather")


def connect(server: str = "model") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{SERVERS[server]}/v1", api_key="none", max_retries=0)


client = connect()


def models() -> None:
    (model,) = client.models.list().data
    assert model.id == MODEL == client.models.retrieve(MODEL).id
    assert model.object == "model"
    assert model.max_model_len > 0


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2, max_tokens=40)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.message.role == "assistant"
        assert choice.message.content
        assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer._request_id


def chat_stream() -> None:
    fields: Any = {"model": MODEL, "messages": MESSAGES, "seed": 3, "max_tokens": 40}
    whole = client.chat.completions.create(**fields)
    chunks = list(
        client.chat.completions.create(
            **fields, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def chat_logprobs() -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=5, logprobs=True, top_logprobs=3
    )
    for token in answer.choices[0].logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert bytes(token.bytes).decode(errors="replace") == token.token


def chat_reasoning() -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=80,
        extra_body={"thinking": {"type": "enabled"}, "thinking_token_budget": 20},
    )
    assert answer.choices[0].message.reasoning_content
    assert 0 < answer.usage.completion_tokens_details.reasoning_tokens <= 20


def chat_parse() -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=100
    )
    weather = answer.choices[0].message.parsed
    assert isinstance(weather, Weather)
    assert weather.city in ("Rome", "Oslo")


def chat_parse_tools() -> None:
    answer = client.chat.completions.parse(
        model=MODEL,
        messages=MESSAGES,
        tools=[WEATHER_TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert isinstance(call.function.parsed_arguments, Weather)


def chat_stream_helper() -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=MESSAGES,
        n=2,
        max_tokens=30,
        stream_options={"include_usage": True},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = {0: "", 1: ""}
    for event in events:
        if event.type == "chunk":
            for choice in event.chunk.choices:
                deltas[choice.index] += choice.delta.content or ""
    assert deltas == {choice.index: choice.message.content for choice in final.choices}
    assert {choice.message.role for choice in final.choices} == {"assistant"}
    assert "content.done" in {event.type for event in events}
    assert final.usage.completion_tokens > 0


def chat_stream_helper_parse() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=MESSAGES, response_format=Weather, max_tokens=100
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Weather)
    assert kinds[-1] == "content.done"


def chat_stream_helper_tools() -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=MESSAGES,
        tools=[WEATHER_TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        max_tokens=200,
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [e for e in events if e.type == "tool_calls.function.arguments.delta"]
    (done,) = [e for e in events if e.type == "tool_calls.function.arguments.done"]
    (call,) = final.choices[0].message.tool_calls
    assert "".join(delta.arguments_delta for delta in deltas) == done.arguments
    assert (
        call.function.parsed_arguments
        == done.parsed_arguments
        == Weather(**json.loads(done.arguments))
    )


def tool_loop() -> None:
    agent = connect("agent")
    messages: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = agent.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "Rome"},
    )
    messages += [
        first.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "21 degrees"},
    ]
    second = agent.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER_TOOL])
    assert second.choices[0].message.content == "It is 21 degrees in Rome."


async def asynchronous() -> None:
    async with openai.AsyncOpenAI(base_url=f"{SERVERS['model']}/v1", api_key="none") as client:
        text = ""
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, max_tokens=20
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text


def completions() -> None:
    answer = client.completions.create(
        model=MODEL, prompt=["def f(", "import"], max_tokens=3, echo=True, logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice, prompt in zip(answer.choices, ("def f(", "import"), strict=True):
        assert choice.text.startswith(prompt)
        assert choice.logprobs.token_logprobs[0] is None
        assert len(choice.logprobs.tokens) == len(choice.logprobs.text_offset)
    stream = client.completions.create(model=MODEL, prompt="def f(", max_tokens=9, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream)


def responses() -> None:
    first = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=60)
    assert first.status in ("completed", "incomplete")
    assert first.output_text
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    second = client.responses.create(
        model=MODEL,
        instructions="Be brief.",
        input="And zip_longest?",
        previous_response_id=first.id,
        max_output_tokens=20,
    )
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(first.id).output_text == first.output_text


def responses_stream() -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, max_output_tokens=60) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text != ""


def responses_parse() -> None:
    answer = client.responses.parse(
        model=MODEL, input=QUESTION, text_format=Weather, max_output_tokens=100
    )
    assert isinstance(answer.output_parsed, Weather)
    with client.responses.stream(
        model=MODEL, input=QUESTION, text_format=Weather, max_output_tokens=100
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Weather)
    assert kinds[-1] == "response.completed"


def responses_tools() -> None:
    tool: Any = {
        "type": "function",
        "name": "get_weather",
        "parameters": Weather.model_json_schema(),
        "strict": False,
    }
    with client.responses.stream(
        model=MODEL, input=QUESTION, tools=[tool], tool_choice="required", max_output_tokens=200
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert calls
    for call in calls:
        Weather(**json.loads(call.arguments))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == "".join(call.arguments for call in calls)


def responses_tool_loop() -> None:
    agent = connect("agent")
    tool: Any = {"type": "function", "name": "get_weather", "parameters": {}, "strict": False}
    items: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = agent.responses.create(model=MODEL, input=items, tools=[tool])
    (call,) = [item for item in first.output if item.type == "function_call"]
    items += first.output
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}]
    second = agent.responses.create(model=MODEL, input=items, tools=[tool])
    assert second.output_text == "It is 21 degrees in Rome."


def refusals() -> None:
    ask = client.chat.completions.create
    error = error_of(openai.NotFoundError, lambda: ask(model="nobody", messages=MESSAGES))
    assert (error.param, error.code) == ("model", "model_not_found")
    error = error_of(
        openai.BadRequestError, lambda: ask(model=MODEL, messages=MESSAGES, temperature=3)
    )
    assert error.param == "temperature"
    busy = connect("busy").chat.completions.create
    error = error_of(openai.RateLimitError, lambda: busy(model=MODEL, messages=MESSAGES))
    assert error.response.headers["retry-after"] == "1"


def failure_within_a_stream() -> None:
    failing = connect("failing")
    chunks: Any = []
    stream: Any = failing.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    error = error_of(openai.APIError, lambda: chunks.extend(stream))
    assert "not finite" in error.message
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == '{"days": 1'
    stream = failing.completions.create(model=MODEL, prompt="a", stream=True)
    assert "not finite" in error_of(openai.APIError, lambda: list(stream)).message


def failure_within_a_response() -> None:
    events: Any = []
    stream = connect("failing").responses.create(model=MODEL, input="Hi", stream=True)
    cut = error_of(Exception, lambda: events.extend(stream))
    # Major 2 lets the transport's own error through.
    assert type(cut).__name__ in ("APIConnectionError", "RemoteProtocolError"), repr(cut)
    *_, failed, error = events
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert (error.type, error.message) == ("error", "the logits are not finite")


if __name__ == "__main__":
    main(globals())
