"""instructor: answers as pydantic models, in each of its modes."""

from typing import Any, Literal

import instructor
import openai
from harness import MODEL, SERVERS, error_of, main
from pydantic import BaseModel, Field


class Weather(BaseModel, extra="forbid"):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]
    days: int = Field(ge=1, le=9)


FIELDS: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
    "response_model": Weather,
    "max_tokens": 100,
    "max_retries": 0,
}


def connect(mode: instructor.Mode, server: str = "model") -> Any:
    client = openai.OpenAI(base_url=f"{SERVERS[server]}/v1", api_key="none", max_retries=0)
    return instructor.from_openai(client, mode=mode)


def check(mode: instructor.Mode) -> None:
    weather, answer = connect(mode).chat.completions.create_with_completion(**FIELDS)
    assert isinstance(weather, Weather)
    assert answer.usage.completion_tokens > 0


def tools() -> None:
    check(instructor.Mode.TOOLS)


def tools_strict() -> None:
    check(instructor.Mode.TOOLS_STRICT)


def json_schema() -> None:
    check(instructor.Mode.JSON_SCHEMA)


def responses_tools() -> None:
    client = connect(instructor.Mode.RESPONSES_TOOLS)
    fields = dict(FIELDS)
    fields["input"] = fields.pop("messages")
    fields["max_output_tokens"] = fields.pop("max_tokens")
    assert isinstance(client.responses.create(**fields), Weather)


def partial_stream() -> None:
    parts = list(connect(instructor.Mode.TOOLS).chat.completions.create_partial(**FIELDS))
    assert len(parts) > 1
    assert Weather(**parts[-1].model_dump()).city in ("Rome", "Oslo")


async def asynchronous() -> None:
    client = openai.AsyncOpenAI(base_url=f"{SERVERS['model']}/v1", api_key="none")
    weather = await instructor.from_openai(
        client, mode=instructor.Mode.JSON_SCHEMA
    ).chat.completions.create(**FIELDS)
    assert isinstance(weather, Weather)


def failure_within_a_stream() -> None:
    ask = connect(instructor.Mode.JSON, "failing").chat.completions.create_partial
    assert "not finite" in str(error_of(Exception, lambda: list(ask(**FIELDS))))


if __name__ == "__main__":
    main(globals())
