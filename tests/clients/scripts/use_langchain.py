"""langchain's OpenAI classes, and its DeepSeek class, which keeps the reasoning."""

from typing import Any, Literal

from harness import MODEL, SERVERS, error_of, main
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

QUESTION = "What does itertools.chain do?"


class Weather(BaseModel, extra="forbid"):
    """The weather of a city."""

    city: Literal["Rome", "Oslo"]


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    assert city == "Rome"
    return "21 degrees"


def chat_of(server: str = "model", **more: Any) -> ChatOpenAI:
    settings: Any = {"model": MODEL, "max_tokens": 60, "max_retries": 0, "temperature": 0.6}
    return ChatOpenAI(base_url=f"{SERVERS[server]}/v1", api_key="none", **settings | more)


def invoke() -> None:
    answer = chat_of().invoke([("system", "Be brief."), ("human", QUESTION)])
    assert answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["finish_reason"] in ("stop", "length")


def stream() -> None:
    whole: Any = None
    for chunk in chat_of(stream_usage=True).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole.content
    assert whole.usage_metadata["output_tokens"] > 0


async def asynchronous() -> None:
    answers = await chat_of().abatch([QUESTION, "What is a set?"])
    assert all(answer.content for answer in answers)


def structured_output() -> None:
    for method in ("json_schema", "function_calling"):
        weather = chat_of().with_structured_output(Weather, method=method).invoke(QUESTION)
        assert isinstance(weather, Weather), method


def tool_calls() -> None:
    model = chat_of().bind_tools([Weather], tool_choice="required", parallel_tool_calls=False)
    (call,) = model.invoke(QUESTION).tool_calls
    assert call["args"]["city"] in ("Rome", "Oslo")
    whole: Any = None
    for chunk in model.stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    (call,) = whole.tool_calls
    assert call["args"]["city"] in ("Rome", "Oslo")


def tool_loop() -> None:
    model = chat_of("agent").bind_tools([get_weather])
    messages: Any = [HumanMessage("What is the weather in Rome?")]
    first = model.invoke(messages)
    (call,) = first.tool_calls
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    second = model.invoke([*messages, first, result])
    assert second.content == "It is 21 degrees in Rome."


def responses() -> None:
    answer = chat_of(use_responses_api=True).invoke(QUESTION)
    assert answer.text
    pieces = [chunk.text for chunk in chat_of(use_responses_api=True).stream(QUESTION)]
    assert "".join(pieces)


def completions() -> None:
    model = OpenAI(model=MODEL, base_url=f"{SERVERS['model']}/v1", api_key="none", max_tokens=9)
    assert model.invoke("def f(")
    assert "".join(model.stream("def f("))


def reasoning() -> None:
    model = ChatDeepSeek(
        model=MODEL,
        api_base=f"{SERVERS['model']}/v1",
        api_key="none",
        max_tokens=80,
        extra_body={"thinking": {"type": "enabled"}, "thinking_token_budget": 20},
    )
    answer = model.invoke(QUESTION)
    assert answer.additional_kwargs["reasoning_content"]


def refusals() -> None:
    error = error_of(Exception, lambda: chat_of(model="nobody").invoke(QUESTION))
    assert error.status_code == 404
    error = error_of(Exception, lambda: chat_of("busy").invoke(QUESTION))
    assert error.status_code == 429


def failure_within_a_stream() -> None:
    pieces: list[str] = []
    stream = chat_of("failing").stream(QUESTION)
    error = error_of(Exception, lambda: pieces.extend(chunk.text for chunk in stream))
    assert "not finite" in str(error)
    assert "".join(pieces) == '{"days": 1'


if __name__ == "__main__":
    main(globals())
