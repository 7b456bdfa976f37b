"""pydantic-ai: agents over chat completions and over responses."""

from typing import Any, Literal

from harness import MODEL, SERVERS, error_of, main
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

QUESTION = "What does itertools.chain do?"


class Weather(BaseModel, extra="forbid"):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]


def agent_of(server: str = "model", kind: Any = OpenAIChatModel, **more: Any) -> "Agent[None, Any]":
    provider = OpenAIProvider(base_url=f"{SERVERS[server]}/v1", api_key="none")
    settings: Any = {"max_tokens": 100}
    return Agent(kind(MODEL, provider=provider), model_settings=settings, **more)


def run() -> None:
    result = agent_of(instructions="Be brief.").run_sync(QUESTION)
    assert result.output
    assert result.usage.output_tokens > 0
    again = agent_of().run_sync("And zip_longest?", message_history=result.all_messages())
    assert again.usage.input_tokens > result.usage.input_tokens


async def stream() -> None:
    async with agent_of().run_stream(QUESTION) as result:
        pieces = [piece async for piece in result.stream_text(delta=True)]
    assert "".join(pieces)
    assert result.usage.output_tokens > 0


def output_by_tool() -> None:
    assert isinstance(agent_of(output_type=ToolOutput(Weather)).run_sync(QUESTION).output, Weather)


def output_by_schema() -> None:
    agent = agent_of(output_type=NativeOutput(Weather))
    assert isinstance(agent.run_sync(QUESTION).output, Weather)


def output_by_schema_beside_tools() -> None:
    agent = agent_of(output_type=NativeOutput(Weather))

    @agent.tool_plain(strict=True)
    def clock() -> str:
        """The time."""
        return "12:00"

    assert isinstance(agent.run_sync(QUESTION).output, Weather)


def with_weather(kind: Any) -> tuple[Any, list[str]]:
    agent, asked = agent_of("agent", kind), []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "21 degrees"

    return agent, asked


def tool_loop() -> None:
    agent, asked = with_weather(OpenAIChatModel)
    assert agent.run_sync("What is the weather in Rome?").output == "It is 21 degrees in Rome."
    assert asked == ["Rome"]


async def tool_loop_in_a_stream() -> None:
    agent, asked = with_weather(OpenAIChatModel)
    async with agent.run_stream("What is the weather in Rome?") as result:
        assert await result.get_output() == "It is 21 degrees in Rome."
    assert asked == ["Rome"]


def responses() -> None:
    assert agent_of(kind=OpenAIResponsesModel).run_sync(QUESTION).output
    agent, asked = with_weather(OpenAIResponsesModel)
    assert agent.run_sync("What is the weather in Rome?").output == "It is 21 degrees in Rome."
    assert asked == ["Rome"]


def refusals() -> None:
    error = error_of(Exception, lambda: agent_of("busy").run_sync(QUESTION))
    assert error.status_code == 429


async def failure_within_a_stream() -> None:
    pieces: list[str] = []
    try:
        async with agent_of("failing").run_stream(QUESTION) as result:
            pieces += [piece async for piece in result.stream_text(delta=True)]
    except Exception as error:  # noqa: BLE001 - whatever it is, it must tell of the cause
        pieces.append(str(error))
    assert "not finite" in pieces[-1]


if __name__ == "__main__":
    main(globals())
