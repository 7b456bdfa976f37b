"""Anthropic's Messages API over a real socket, with Anthropic's own client."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import pydantic
import pytest

from leadline.engine.request import FinishReason, GrammarKind

TOOLS: Any = [
    {
        "name": "get_time",
        "description": "The time",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    {"name": "f", "input_schema": {"type": "object"}, "type": "custom"},
]
USER: Any = [{"role": "user", "content": "Hi"}]
ANSWER = 'Hm.</think>I look.[[((get_time||{"city": "Rome"}))((f||{}))]]'


@pytest.fixture
def speak(serve_thinker: Callable[..., Any], anthropic_of: Any) -> Callable[..., Any]:
    """As `serve_thinker`, with Anthropic's client."""

    def start(says: str, **script: Any) -> Any:
        service = serve_thinker(says, **script)
        service.anthropic = anthropic_of(service.url)
        return service

    return start


@pytest.fixture
def plain(serve: Callable[..., Any], anthropic_of: Any) -> Any:
    """A service whose model can neither think nor call."""
    service = serve()
    service.anthropic = anthropic_of(service.url)
    return service


def ask(service: Any, **fields: Any) -> Any:
    fields = {"model": "tiny", "max_tokens": 5000, "messages": USER} | fields
    return service.anthropic.messages.create(**fields)


def streamed(service: Any, **fields: Any) -> Any:
    """What Anthropic's client makes of a stream."""
    fields = {"model": "tiny", "max_tokens": 5000, "messages": USER} | fields
    with service.anthropic.messages.stream(**fields) as stream:
        return stream.get_final_message()


def post(service: Any, **fields: Any) -> Any:
    fields = {"model": "tiny", "max_tokens": 5000, "messages": USER} | fields
    return service.post("/v1/messages", fields)


def prompt_of(service: Any) -> str:
    (request,) = service.engine.requests
    return str(service.state.tokenizer.decode(request.prompt_ids, skip_special_tokens=False))


def params_of(service: Any) -> Any:
    (request,) = service.engine.requests
    return request.params


def both(service: Any, **fields: Any) -> Iterator[Any]:
    yield ask(service, **fields)
    yield streamed(service, **fields)


def test_a_message(plain: Any) -> None:
    for message in both(plain):
        assert message.id.startswith("msg_")
        assert (message.type, message.role, message.model) == ("message", "assistant", "tiny")
        (block,) = message.content
        assert (block.type, block.text) == ("text", "Hello, world!")
        assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
        num_prompt_tokens = len(plain.engine.requests[0].prompt_ids)
        assert message.usage.input_tokens == num_prompt_tokens
        assert message.usage.output_tokens == 14
        assert message.usage.cache_read_input_tokens == 0
        assert message.usage.cache_creation_input_tokens == 0


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_blocks_of_every_kind(speak: Any, chunk: int) -> None:
    service = speak(ANSWER, chunk=chunk)
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    messages = list(both(service, tools=TOOLS, thinking=thinking))
    for message in messages:
        thought, text, first, second = message.content
        assert (thought.type, thought.thinking) == ("thinking", "Hm.")
        assert thought.signature
        assert (text.type, text.text) == ("text", "I look.")
        assert (first.type, first.name, first.input) == ("tool_use", "get_time", {"city": "Rome"})
        assert (second.type, second.name, second.input) == ("tool_use", "f", {})
        assert first.id != second.id
        assert message.stop_reason == "tool_use"
        assert message.usage.output_tokens_details.thinking_tokens == 3
    assert messages[0].content[0].signature == messages[1].content[0].signature


def test_usage_tells_the_cache_apart(speak: Any) -> None:
    service = speak("x", num_cached_tokens=8, state={"page_size": 4})
    for message in both(service, messages=[{"role": "user", "content": "x" * 7}]):
        usage = message.usage
        assert len(service.engine.requests[0].prompt_ids) == len("user: xxxxxxx|") == 14
        assert usage.cache_read_input_tokens == 8
        assert usage.cache_creation_input_tokens == 4
        assert usage.input_tokens == 2


@pytest.mark.parametrize(
    ("says", "fields", "reason", "sequence", "text"),
    [
        ("a STOP b", {"stop_sequences": ["STOP", "b"]}, "stop_sequence", "STOP", "a "),
        ("abcdef", {"max_tokens": 3}, "max_tokens", None, "abc"),
        ("abcdef", {}, "end_turn", None, "abcdef"),
    ],
)
def test_why_it_ends(
    speak: Any, says: str, fields: Any, reason: str, sequence: Any, text: str
) -> None:
    service = speak(says)
    for message in both(service, **fields):
        assert (message.stop_reason, message.stop_sequence) == (reason, sequence)
        assert message.content[0].text == text


def test_more_than_the_context_has_room_for(speak: Any) -> None:
    service = speak("abcdef" * 20, state={"max_model_len": 20})
    for message in both(service, max_tokens=32_000):
        assert message.stop_reason == "model_context_window_exceeded"
        assert message.usage.input_tokens + message.usage.output_tokens == 20
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 24 tokens > 19 max"):
        ask(service, messages=[{"role": "user", "content": "x" * 17}])


def test_a_prompt_that_is_only_to_be_cached(speak: Any) -> None:
    body = post(speak("abc"), max_tokens=0).json()
    assert (body["content"], body["stop_reason"]) == ([], "max_tokens")
    assert body["usage"]["output_tokens"] == 0
    response = post(speak("abc"), max_tokens=0, stream=True)
    assert response.status_code == 400


def test_a_conversation_reaches_the_model(speak: Any) -> None:
    service = speak("x")
    cached: Any = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "a", **cached}]},
        {"role": "user", "content": "b"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "of somebody else"},
                {"type": "redacted_thinking", "data": "?"},
                {"type": "text", "text": "c"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": "\u00fc"}, **cached},
                {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "d"},
                {"type": "tool_result", "tool_use_id": "t1", "content": "5 o'clock"},
                {
                    "type": "tool_result",
                    "tool_use_id": "t2",
                    "content": [{"type": "text", "text": "e"}, {"type": "text", "text": "f"}],
                    "is_error": True,
                },
                {"type": "text", "text": "g"},
            ],
        },
        {"role": "system", "content": "From now on."},
        {"role": "assistant", "content": "h"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]},
    ]
    system: Any = [{"type": "text", "text": "S1"}, {"type": "text", "text": "S2", **cached}]
    ask(service, messages=messages, system=system, cache_control={"type": "ephemeral"})
    assert prompt_of(service) == (
        "system: S1\n\nS2|user: a\nb|"
        'assistant: c#Hm.<t1 f {"x": "\u00fc"}><t2 f {}>|'
        "tool: 5 o'clock=t1|tool: Error: e\nf=t2|user: d\ng|system: From now on.|"
        "assistant: h|tool: =t3|"
    )


def test_what_an_answer_said_goes_back(speak: Any) -> None:
    service = speak(ANSWER)
    message = ask(service, tools=TOOLS, thinking={"type": "adaptive"})
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "ok"}
        for block in message.content
        if block.type == "tool_use"
    ]
    again = [*USER, message.to_param(), {"role": "user", "content": results}]
    service.engine.requests.clear()
    streamed(service, messages=again)
    assert "assistant: I look.#Hm.<call_" in prompt_of(service)
    assert 'get_time {"city": "Rome"}>' in prompt_of(service)


def test_thinking_that_is_not_shown(speak: Any) -> None:
    service = speak("H\u00fcm.</think>x")
    for message in both(service, thinking={"type": "adaptive", "display": "omitted"}):
        thought, text = message.content
        assert (thought.thinking, text.text) == ("", "x")
    service.engine.requests.clear()
    ask(service, messages=[*USER, message.to_param(), *USER])
    assert "assistant: x#H\u00fcm.|" in prompt_of(service)


@pytest.mark.parametrize(
    ("fields", "budget", "thinks"),
    [
        ({}, None, False),
        ({"thinking": {"type": "disabled"}}, 0, False),
        ({"thinking": {"type": "adaptive"}}, None, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1500}}, 1500, True),
        ({"output_config": {"effort": "low"}}, 1024, False),
        ({"output_config": {"effort": "max"}, "thinking": {"type": "adaptive"}}, None, True),
        ({"output_config": {"effort": "medium"}, "thinking": {"type": "adaptive"}}, 3750, True),
        (
            {
                "output_config": {"effort": "low"},
                "thinking": {"type": "enabled", "budget_tokens": 1500},
            },
            1500,
            True,
        ),
    ],
)
def test_how_long_it_may_think(speak: Any, fields: Any, budget: Any, thinks: bool) -> None:
    service = speak("x")
    ask(service, **fields)
    assert params_of(service).thinking.budget == budget
    assert prompt_of(service).endswith("<think>") == thinks


def test_a_model_that_cannot_think(plain: Any) -> None:
    for thinking in ({"type": "disabled"}, {"type": "adaptive"}):
        fields: Any = {"thinking": thinking, "output_config": {"effort": "high"}}
        assert ask(plain, max_tokens=50, **fields).content[0].text == "Hello, world!"
    with pytest.raises(anthropic.BadRequestError, match=r"thinking.* is not supported"):
        ask(plain, thinking={"type": "enabled", "budget_tokens": 1024})


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("x-anthropic-billing-header: cc_version=2; cch=1;\nBe kind.", "Be kind."),
        (
            [
                {"type": "text", "text": "x-anthropic-billing-header: cch=2;"},
                {"type": "text", "text": "Be kind."},
            ],
            "Be kind.",
        ),
        ("Of x-anthropic-billing-header: say no word.", "Of x-anthropic-billing-header: say no "),
    ],
)
def test_the_line_that_changes_is_left_out(speak: Any, system: Any, expected: str) -> None:
    service = speak("x")
    ask(service, system=system)
    assert prompt_of(service).startswith(f"system: {expected}")


def test_a_system_text_of_nothing_else(speak: Any) -> None:
    service = speak("x")
    ask(service, system="x-anthropic-billing-header: cch=2;")
    assert prompt_of(service) == "user: Hi|"


def test_the_model_is_told_of_the_tools(speak: Any) -> None:
    service = speak("x")
    examples = [{"city": "Rome"}]
    tools = [TOOLS[0] | {"input_examples": examples, "strict": False}, TOOLS[1]]
    ask(service, tools=tools)
    told = json.loads(prompt_of(service).split("\n")[0])
    assert [tool["function"]["name"] for tool in told] == ["get_time", "f"]
    assert told[0]["function"]["parameters"] == TOOLS[0]["input_schema"] | {"examples": examples}
    assert told[0]["function"]["description"] == "The time"


@pytest.mark.parametrize(
    ("choice", "is_told", "kind", "num_calls"),
    [
        ({"type": "auto"}, True, None, 2),
        ({"type": "auto", "disable_parallel_tool_use": True}, True, None, 1),
        ({"type": "any"}, True, GrammarKind.LARK, 2),
        ({"type": "tool", "name": "f"}, True, GrammarKind.LARK, 1),
        ({"type": "none"}, False, None, 0),
    ],
)
def test_tool_choice(speak: Any, choice: Any, is_told: bool, kind: Any, num_calls: int) -> None:
    service = speak("[[((f||{}))((f||{}))]]")
    message = ask(service, tools=TOOLS, tool_choice=choice)
    assert ("get_time" in prompt_of(service)) == is_told
    grammar = params_of(service).grammar
    assert (None if grammar is None else grammar.kind) == kind
    assert [block.type for block in message.content].count("tool_use") == num_calls
    if choice["type"] == "tool":
        assert "get_time" not in grammar.text


def test_a_strict_tool(speak: Any) -> None:
    service = speak("x")
    ask(service, tools=[TOOLS[0] | {"strict": True}])
    assert "city" in params_of(service).grammar.text


class Point(pydantic.BaseModel):
    x: int


def test_a_format(speak: Any) -> None:
    service = speak('{"x": 1}')
    fields: Any = {"model": "tiny", "max_tokens": 100, "messages": USER}
    parsed = service.anthropic.messages.parse(**fields, output_format=Point)
    assert parsed.parsed_output == Point(x=1)
    grammar = params_of(service).grammar
    assert grammar.kind is GrammarKind.JSON_SCHEMA
    assert json.loads(grammar.text)["required"] == ["x"]
    schema = {"type": "object"}
    post(service, output_format={"type": "json_schema", "schema": schema})
    assert json.loads(service.engine.requests[1].params.grammar.text) == schema
    post(service, output_format={"type": "json_schema", "schema": schema}, tools=TOOLS)
    assert service.engine.requests[2].params.grammar.kind is GrammarKind.LARK  # text or calls


def test_how_tokens_are_chosen(speak: Any) -> None:
    service = speak("x")
    extra = {"seed": 5, "min_p": 0.1, "logit_bias": {"5": 1.5}, "priority": 3, "min_tokens": 2}
    extra |= {"speculative_tokens": 0, "cache_salt": "s", "deadline_s": 1000.0}
    response = post(service, temperature=1.5, top_k=7, top_p=0.5, max_tokens=9, **extra)
    assert "x-ignored-fields" not in response.headers
    (request,) = service.engine.requests
    params = request.params
    assert (params.temperature, params.top_k, params.top_p) == (1.5, 7, 0.5)
    assert (params.seed, params.min_p, params.logit_bias) == (5, 0.1, ((5, 1.5),))
    assert (params.max_tokens, params.min_tokens, params.speculative_tokens) == (9, 2, 0)
    assert (request.priority, request.cache_salt) == (3, "s")
    assert request.deadline_s is not None


def test_counting_tokens(speak: Any) -> None:
    service = speak("x")
    fields: Any = {
        "messages": USER,
        "system": "S",
        "tools": TOOLS,
        "thinking": {"type": "adaptive"},
    }
    count = service.anthropic.messages.count_tokens(model="tiny", **fields)
    assert not service.engine.requests
    assert count.input_tokens == ask(service, **fields).usage.input_tokens > 100


def test_models(plain: Any) -> None:
    page = plain.anthropic.models.list()
    assert [model.id for model in page] == ["tiny", "org/alias"]
    assert (page.has_more, page.first_id, page.last_id) == (False, "tiny", "org/alias")
    model = plain.anthropic.models.retrieve("org/alias")
    assert (model.type, model.id, model.display_name) == ("model", "org/alias", "org/alias")
    assert model.lifecycle == "active"
    assert int(model.created_at.timestamp()) == plain.state.created_s
    assert model.max_input_tokens == 200
    assert plain.http.get("/v1/models").json()["object"] == "list"  # OpenAI's, to all others


def test_pages_of_models(plain: Any) -> None:
    client = plain.anthropic
    assert [model.id for model in client.models.list(limit=1)] == ["tiny", "org/alias"]
    assert client.models.list(limit=1).has_more
    assert [m.id for m in client.models.list(before_id="org/alias")] == ["tiny"]
    assert [m.id for m in client.models.list(after_id="org/alias")] == []
    assert [m.id for m in client.models.list(lifecycle=["retired"])] == []
    for query in ({"limit": 0}, {"after_id": "x"}, {"after_id": "tiny", "before_id": "tiny"}):
        with pytest.raises(anthropic.BadRequestError):
            client.models.list(**query)


def test_a_client_that_leaves(speak: Any) -> None:
    service = speak("x" * 1000, step_s=0.01)
    fields: Any = {"model": "tiny", "max_tokens": 5000, "messages": USER}
    with service.anthropic.messages.stream(**fields) as stream:
        next(iter(stream.text_stream))
    assert service.engine.wait_finished() == [FinishReason.ABORT]
