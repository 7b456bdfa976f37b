"""OpenAI's Agents SDK, over responses and over chat completions."""

from typing import Any, Literal

import agents
import openai
from harness import MODEL, SERVERS, error_of, main
from pydantic import BaseModel

QUESTION = "What does itertools.chain do?"
KINDS = (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)
agents.set_tracing_disabled(True)


class Weather(BaseModel, extra="forbid"):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]


@agents.function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    assert city == "Rome"
    return "21 degrees"


def agent_of(kind: Any, server: str = "model", **more: Any) -> "agents.Agent[Any]":
    client = openai.AsyncOpenAI(base_url=f"{SERVERS[server]}/v1", api_key="none", max_retries=0)
    settings = agents.ModelSettings(max_tokens=100)
    return agents.Agent(
        "helper", model=kind(MODEL, openai_client=client), model_settings=settings, **more
    )


def run() -> None:
    for kind in KINDS:
        result = agents.Runner.run_sync(agent_of(kind, instructions="Be brief."), QUESTION)
        assert result.final_output
        assert result.context_wrapper.usage.output_tokens > 0


async def stream() -> None:
    for kind in KINDS:
        result = agents.Runner.run_streamed(agent_of(kind), QUESTION)
        deltas = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event"
            and event.data.type == "response.output_text.delta"
        ]
        assert "".join(deltas) == result.final_output != ""


def output_by_schema() -> None:
    for kind in KINDS:
        result = agents.Runner.run_sync(agent_of(kind, output_type=Weather), QUESTION)
        assert isinstance(result.final_output, Weather)


def tool_loop() -> None:
    for kind in KINDS:
        agent = agent_of(kind, "agent", tools=[get_weather])
        result = agents.Runner.run_sync(agent, "What is the weather in Rome?")
        assert result.final_output == "It is 21 degrees in Rome."


async def tool_loop_in_a_stream() -> None:
    for kind in KINDS:
        agent = agent_of(kind, "agent", tools=[get_weather])
        result = agents.Runner.run_streamed(agent, "What is the weather in Rome?")
        names = [event.name async for event in result.stream_events() if hasattr(event, "name")]
        assert names == ["tool_called", "tool_output", "message_output_created"]
        assert result.final_output == "It is 21 degrees in Rome."


def refusals() -> None:
    for kind in KINDS:
        agent = agent_of(kind, "busy")
        error_of(openai.RateLimitError, lambda: agents.Runner.run_sync(agent, QUESTION))  # noqa: B023


async def failure_within_a_stream() -> None:
    for kind in KINDS:
        result = agents.Runner.run_streamed(agent_of(kind, "failing"), QUESTION)
        try:
            async for _ in result.stream_events():
                pass
        except Exception:  # noqa: BLE001 - whatever it is, it must be one
            continue
        raise AssertionError(kind)


if __name__ == "__main__":
    main(globals())
