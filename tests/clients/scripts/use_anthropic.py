"""Anthropic's Python library: what its documentation shows."""

from typing import Any, Literal

import anthropic
from harness import MODEL, SERVERS, error_of, main
from pydantic import BaseModel

MESSAGES: Any = [{"role": "user", "content": "What does itertools.chain do?"}]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"name": "get_weather", "description": "The weather", "input_schema": SCHEMA}


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]


def connect(server: str = "model") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=SERVERS[server], api_key="none", max_retries=0)


client = connect()


def messages() -> None:
    answer = client.messages.create(model=MODEL, max_tokens=40, messages=MESSAGES)
    assert (answer.type, answer.role) == ("message", "assistant")
    assert answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0 < answer.usage.output_tokens
    assert answer._request_id


def system_and_stop() -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=200,
        system=[{"type": "text", "text": "Be brief."}],
        messages=MESSAGES,
        stop_sequences=["e"],
        extra_body={"temperature": 0.0},  # the library has no field for it any more
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "e")
    assert "e" not in answer.content[0].text


def count_tokens() -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES, system="Be brief.")
    answer = client.messages.create(
        model=MODEL, max_tokens=1, messages=MESSAGES, system="Be brief."
    )
    assert counted.input_tokens == answer.usage.input_tokens + sum(
        (answer.usage.cache_read_input_tokens, answer.usage.cache_creation_input_tokens)
    )


def stream() -> None:
    with client.messages.stream(model=MODEL, max_tokens=40, messages=MESSAGES) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text != ""
    assert final.usage.output_tokens > 0


def stream_of_events() -> None:
    kinds = [
        event.type
        for event in client.messages.create(
            model=MODEL, max_tokens=40, messages=MESSAGES, stream=True
        )
        if event.type != "ping"
    ]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def thinking() -> None:
    answer = client.messages.create(
        model=MODEL,
        max_tokens=1200,
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=MESSAGES,
    )
    assert answer.content[0].type == "thinking"
    assert answer.content[0].thinking


def forced_tool() -> None:
    with client.messages.stream(
        model=MODEL,
        max_tokens=100,
        messages=MESSAGES,
        tools=[TOOL],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as stream:
        final = stream.get_final_message()
    (block,) = final.content
    assert (block.type, block.name, final.stop_reason) == ("tool_use", "get_weather", "tool_use")
    assert block.input["city"] in ("Rome", "Oslo")


def parse() -> None:
    answer = client.messages.parse(
        model=MODEL, max_tokens=100, messages=MESSAGES, output_format=Weather
    )
    assert isinstance(answer.parsed_output, Weather)


def tool_loop() -> None:
    agent = connect("agent")
    turns: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = agent.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=[TOOL])
    (call,) = first.content
    assert (call.name, call.input) == ("get_weather", {"city": "Rome"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
    turns += [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result]},
    ]
    second = agent.messages.create(model=MODEL, max_tokens=100, messages=turns, tools=[TOOL])
    assert second.content[0].text == "It is 21 degrees in Rome."


def models() -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def refusals() -> None:
    ask = client.messages.create
    error = error_of(
        anthropic.NotFoundError, lambda: ask(model="nobody", max_tokens=1, messages=MESSAGES)
    )
    assert error.body["error"]["type"] == "not_found_error"
    error = error_of(
        anthropic.BadRequestError,
        lambda: ask(model=MODEL, max_tokens=1, messages=MESSAGES, extra_body={"temperature": 3}),
    )
    assert "temperature" in str(error)
    busy = connect("busy").messages.create
    error_of(anthropic.RateLimitError, lambda: busy(model=MODEL, max_tokens=1, messages=MESSAGES))


def failure_within_a_stream() -> None:
    pieces: list[str] = []
    with connect("failing").messages.stream(
        model=MODEL, max_tokens=40, messages=MESSAGES
    ) as stream:
        error = error_of(anthropic.APIError, lambda: pieces.extend(stream.text_stream))
    assert "not finite" in str(error)
    assert "".join(pieces) == '{"days": 1'


if __name__ == "__main__":
    main(globals())
