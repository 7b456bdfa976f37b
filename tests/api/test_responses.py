"""OpenAI's Responses API over a real socket, with OpenAI's own client."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pydantic
import pytest

from leadline.engine.request import FinishReason, GrammarKind

TOOLS: Any = [
    {
        "type": "function",
        "name": "get_time",
        "description": "The time",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": False,
    },
    {"type": "function", "name": "f", "parameters": None, "strict": None},
]
ANSWER = 'Hm.</think>I look.[[((get_time||{"city": "Rome"}))((f||{}))]]'
THINK: Any = {"effort": "high", "summary": "auto"}


def ask(service: Any, **fields: Any) -> Any:
    return service.client.responses.create(**({"model": "tiny", "input": "Hi"} | fields))


def streamed(service: Any, **fields: Any) -> Any:
    """What OpenAI's client makes of a stream that completes."""
    fields = {"model": "tiny", "input": "Hi"} | fields
    with service.client.responses.stream(**fields) as stream:
        return stream.get_final_response()


def both(service: Any, **fields: Any) -> Iterator[Any]:
    yield ask(service, **fields)
    yield streamed(service, **fields)


def post(service: Any, **fields: Any) -> Any:
    return service.post("/v1/responses", {"model": "tiny", "input": "Hi"} | fields)


def refusal(service: Any, **fields: Any) -> Any:
    response = post(service, **fields)
    assert response.status_code == 400, response.text
    return response.json()["error"]


def events_of(service: Any, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream; checks what holds for every stream."""
    response = post(service, stream=True, **fields)
    assert response.status_code == 200, response.text
    return parse_events(response.text)


def parse_events(text: str) -> list[dict[str, Any]]:
    events = []
    for frame in text.split("\n\n"):
        if not frame or frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def prompt_of(service: Any) -> str:
    request = service.engine.requests[-1]
    return str(service.state.tokenizer.decode(request.prompt_ids, skip_special_tokens=False))


def params_of(service: Any) -> Any:
    return service.engine.requests[-1].params


def test_a_response(service: Any) -> None:
    for response in both(service):
        assert response.id.startswith("resp_")
        assert (response.object, response.model, response.status) == (
            "response",
            "tiny",
            "completed",
        )
        (item,) = response.output
        assert (item.type, item.role, item.status) == ("message", "assistant", "completed")
        assert item.id.startswith("msg_")
        assert response.output_text == "Hello, world!"
        assert response.completed_at >= response.created_at
        num_prompt_tokens = len(service.engine.requests[0].prompt_ids)
        usage = response.usage
        assert (usage.input_tokens, usage.output_tokens) == (num_prompt_tokens, 14)
        assert usage.total_tokens == num_prompt_tokens + 14
        assert usage.output_tokens_details.reasoning_tokens == 0
        assert (response.temperature, response.top_p) == (0.6, 0.9)
        assert response.incomplete_details is None
        assert response.error is None


def test_cached_tokens(serve: Callable[..., Any]) -> None:
    service = serve(num_cached_tokens=4, state={"page_size": 4})
    for response in both(service):
        num_prompt_tokens = len(service.engine.requests[0].prompt_ids)
        details = response.usage.input_tokens_details
        assert details.cached_tokens == 4
        assert details.cache_write_tokens == num_prompt_tokens // 4 * 4 - 4


def test_every_item(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker(ANSWER)
    for response in both(service, reasoning=THINK, tools=TOOLS):
        reasoning, message, first, second = response.output
        assert [part.text for part in reasoning.content] == ["Hm."]
        assert (reasoning.type, reasoning.summary) == ("reasoning", [])
        assert message.content[0].text == "I look."
        assert (first.name, json.loads(first.arguments)) == ("get_time", {"city": "Rome"})
        assert (second.name, second.arguments) == ("f", "{}")
        assert first.call_id != second.call_id
        assert len({item.id for item in response.output}) == 4
        assert response.status == "completed"
        assert response.reasoning.effort == "high"
        assert response.usage.output_tokens_details.reasoning_tokens == 3


def test_the_order_of_events(serve_thinker: Callable[..., Any]) -> None:
    events = events_of(serve_thinker(ANSWER, chunk=1000), reasoning=THINK, tools=TOOLS)
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert last["output"] == done
    for event in events:
        if "output_index" in event and "item_id" in event:
            assert event["item_id"] == done[event["output_index"]]["id"]


def test_events_are_those_that_the_client_knows(serve_thinker: Callable[..., Any]) -> None:
    """Every field that the client's types require is there, of the right type."""
    from openai.types.responses import ResponseStreamEvent

    known: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(ResponseStreamEvent)
    for event in events_of(serve_thinker(ANSWER, chunk=7), reasoning=THINK, tools=TOOLS):
        known.validate_python(event)
    whole = post(serve_thinker(ANSWER), reasoning=THINK, tools=TOOLS).json()
    openai.types.responses.Response.model_validate(whole)


def test_what_was_asked_is_told_again(serve_thinker: Callable[..., Any]) -> None:
    fields: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 100,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.5,
        "top_p": 0.8,
        "tool_choice": "none",
        "user": "u",
    }
    response = post(serve_thinker("x"), **fields, tools=TOOLS, service_tier="auto").json()
    assert {name: response[name] for name in fields} == fields
    assert response["service_tier"] == "default"
    assert response["truncation"] == "disabled"
    assert response["text"]["format"] == {"type": "text"}
    assert [tool["strict"] for tool in response["tools"]] == [False, False]


def test_a_conversation_reaches_the_model(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker("x")
    items: Any = [
        {"role": "developer", "content": "D"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "A"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}
        | {"content": [{"type": "reasoning_text", "text": "R"}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "B", "annotations": [], "logprobs": []}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "d", "name": "f", "arguments": '{"x": 1}'},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {
            "type": "function_call_output",
            "call_id": "d",
            "output": [{"type": "input_text", "text": "2"}],
        },
    ]
    response = post(service, input=items, instructions="S")
    assert response.status_code == 200, response.text
    assert "x-ignored-fields" not in response.headers
    assert prompt_of(service) == (
        'system: S|system: D|user: A|assistant: B#R<c f {}><d f {"x": 1}>|tool: 1=c|tool: 2=d|'
    )


def test_calls_alone_have_no_content(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker("x")
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    post(service, input=[{"role": "user", "content": "A"}, call])
    assert prompt_of(service) == "user: A|assistant: None<c f {}>|"


def test_a_tool_loop(serve_thinker: Callable[..., Any]) -> None:
    """The answer's items are sent back as they came."""
    service = serve_thinker(ANSWER)
    first = ask(service, reasoning=THINK, tools=TOOLS)
    items: Any = [{"role": "user", "content": "Hi"}, *first.output]
    calls = [item for item in first.output if item.type == "function_call"]
    items += [
        {"type": "function_call_output", "call_id": call.call_id, "output": "12"} for call in calls
    ]
    ask(service, input=items, reasoning=THINK, tools=TOOLS)
    ids = [call.call_id for call in calls]
    assert prompt_of(service).partition("\n")[2] == (
        f'user: Hi|assistant: I look.#Hm.<{ids[0]} get_time {{"city": "Rome"}}><{ids[1]} f {{}}>|'
        f"tool: 12={ids[0]}|tool: 12={ids[1]}|<think>"
    )


def test_as_the_codex_agent_asks(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker(ANSWER)
    stream = ask(
        service,
        instructions="You are a coding agent.",
        input=[
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "<permissions>"}],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Fix it"}],
            },
        ],
        tools=[tool | {"strict": False} for tool in TOOLS],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning=THINK,
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="0199",
    )
    events = list(stream)
    assert events[-1].type == "response.completed"
    assert [item.type for item in events[-1].response.output] == [
        "reasoning",
        "message",
        "function_call",
    ]
    assert "system: You are a coding agent.|system: <permissions>|user: Fix it|" in prompt_of(
        service
    )


def test_parsed_output(serve: Callable[..., Any]) -> None:
    class City(pydantic.BaseModel):
        name: str

    service = serve(text=lambda request: '{"name": "Rome"}')
    parsed = service.client.responses.parse(model="tiny", input="Hi", text_format=City)
    assert parsed.output_parsed == City(name="Rome")
    grammar = params_of(service).grammar
    assert grammar.kind is GrammarKind.JSON_SCHEMA
    assert json.loads(grammar.text)["properties"]["name"]["type"] == "string"
    post(service, text={"format": {"type": "json_object"}, "verbosity": "medium"})
    assert json.loads(params_of(service).grammar.text) == {"type": "object"}
    post(service, text={"format": {"type": "text"}})
    assert params_of(service).grammar is None


def test_tool_choices(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker(ANSWER)
    post(service, tools=TOOLS, tool_choice="required")
    assert params_of(service).grammar is not None
    post(service, tools=TOOLS, tool_choice={"type": "function", "name": "f"})
    assert params_of(service).grammar is not None
    for mode in ("auto", "required"):
        choice = allowed(mode, FUNCTION)
        response = post(service, tools=TOOLS, tool_choice=choice)
        assert response.json()["tool_choice"] == choice
        assert "get_time" in prompt_of(service)
        grammar = params_of(service).grammar.text
        assert "get_time" not in grammar
        assert grammar.startswith("start: TEXT calls?" if mode == "auto" else "start: calls\n")
    post(service, tools=TOOLS, tool_choice="none")
    assert "get_time" not in prompt_of(service)
    assert params_of(service).grammar is None


def test_an_answer_that_breaks_off(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker("Hm.</think>I look.")
    response = ask(service, reasoning=THINK, max_output_tokens=8)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert [item.status for item in response.output] == ["completed", "incomplete"]
    assert response.completed_at is None
    events = events_of(service, reasoning=THINK, max_output_tokens=8)
    assert events[-1]["type"] == "response.incomplete"
    assert [item["status"] for item in events[-1]["response"]["output"]] == [
        "completed",
        "incomplete",
    ]


def test_log_probabilities(serve_thinker: Callable[..., Any]) -> None:
    """They are those of the text alone, streamed as it comes, and whole at its end."""
    includes = {"include": ["message.output_text.logprobs"]}
    says = "Hm.</think>I l\u00f6\u00f6k.[[((f||{}))]]\nTo it."
    for chunk in (1, 2, 1000):
        service = serve_thinker(says, chunk=chunk)
        fields = {"reasoning": THINK, "tools": TOOLS} | includes
        answers = [*both(service, **fields, top_logprobs=2), ask(service, **includes)]
        for num, answer in zip((2, 2, 0), answers, strict=True):
            assert answer.top_logprobs == num
            texts = [
                part for item in answer.output if item.type == "message" for part in item.content
            ]
            for part in texts:
                told = b"".join(bytes(entry.bytes) for entry in part.logprobs)
                assert told.decode() == part.text
                for entry in part.logprobs:
                    assert entry.logprob == -1.0
                    assert len(entry.top_logprobs) == num
        assert [len(item.content or ()) for item in answers[0].output if item.type == "message"]
        events = events_of(service, **fields, top_logprobs=1)
        deltas = [e for e in events if e["type"] == "response.output_text.delta"]
        whole = [e for e in events if e["type"] == "response.output_text.done"]
        assert [entry for e in deltas for entry in e["logprobs"]] == [
            entry for e in whole for entry in e["logprobs"]
        ]
        assert whole[0]["text"] == "I l\u00f6\u00f6k."
        assert len(whole[0]["logprobs"]) == len(whole[0]["text"].encode())
    assert ask(service).output[0].content[0].logprobs == []


def test_log_probabilities_end_with_the_text(serve_thinker: Callable[..., Any]) -> None:
    (item,) = ask(serve_thinker("I look."), top_logprobs=1, extra_body={"stop": "oo"}).output
    assert [entry.token for entry in item.content[0].logprobs] == ["I", " ", "l"]


@pytest.mark.parametrize(("says", "text"), [("", ""), ("Hm.</think>", ""), ("</think>\n", "\n")])
def test_there_is_always_a_message_or_a_call(
    serve_thinker: Callable[..., Any], says: str, text: str
) -> None:
    for response in both(serve_thinker(says), reasoning=THINK if says else None):
        assert response.output[-1].type == "message"
        assert response.output_text == text


def test_blanks_between_reasoning_and_calls_are_no_message(
    serve_thinker: Callable[..., Any],
) -> None:
    for response in both(
        serve_thinker("Hm.</think>\n\n[[((f||{}))]]"), reasoning=THINK, tools=TOOLS
    ):
        assert [item.type for item in response.output] == ["reasoning", "function_call"]


def test_further_sampling_fields(service: Any) -> None:
    fields = {"seed": 5, "top_k": 3, "min_p": 0.1, "stop_token_ids": [7], "repetition_penalty": 1.5}
    response = post(service, **fields, stop=["wor"], max_output_tokens=50)
    assert response.json()["output"][0]["content"][0]["text"] == "Hello, "
    assert response.json()["seed"] == 5
    params = params_of(service)
    assert (params.seed, params.top_k, params.min_p, params.max_tokens) == (5, 3, 0.1, 50)
    assert params.repetition_penalty == 1.5


FUNCTION: Any = {"type": "function", "name": "f"}


def allowed(mode: str, *tools: Any) -> Any:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0].type",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]},
            "input[0].content[0].text",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": TOOLS, "tool_choice": {"type": "mcp"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "g"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": allowed("auto")}, "tool_choice.tools"),
        ({"tools": TOOLS, "tool_choice": allowed("all", FUNCTION)}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", {"type": "mcp"})},
            "tool_choice.tools[0].type",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", {"type": "function"})},
            "tool_choice.tools[0].name",
        ),
        (
            {"tools": TOOLS, "tool_choice": allowed("auto", FUNCTION, FUNCTION | {"name": "g"})},
            "tool_choice",
        ),
        ({"tools": [TOOLS[1], TOOLS[1]]}, "tools[1].name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "extreme"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"include": ["x"]}, "include[0]"),
        ({"top_logprobs": 3_000}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
        ({"truncation": "left"}, "truncation"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True, "store": False}, "background"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, None),
        ({"temperature": 3}, "temperature"),
        ({"top_k": -5}, "top_k"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_output_tokens": 100_000}, "input"),
        ({"input": "x" * 30_000}, "input"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_refusals_name_the_field(
    serve_thinker: Callable[..., Any], fields: dict[str, Any], param: str | None
) -> None:
    error = refusal(serve_thinker("x"), **fields)
    assert error["param"] == (param or "stream_options.include_obfuscation")
    assert error["type"] == "invalid_request_error"
    for name in ("messages", "response_format", " max_tokens", "reasoning_effort"):
        assert name not in error["message"]


def test_thinking_that_the_model_is_not_capable_of(service: Any) -> None:
    assert refusal(service, reasoning={"effort": "high"})["param"] == "reasoning.effort"
    assert post(service, reasoning={"effort": "none"}).status_code == 200
    assert post(service, reasoning={"summary": "auto"}).status_code == 200


def test_unknown_fields_are_named(serve: Callable[..., Any]) -> None:
    item = {"role": "user", "content": [{"type": "input_text", "text": "x", "y": 1}], "z": 1}
    fields = {"input": [item], "tools": [TOOLS[0] | {"w": 1}], "v": 1, "tool_choice": "none"}
    response = post(serve(), **fields)
    assert response.status_code == 200, response.text
    names = response.headers["x-ignored-fields"].split(", ")
    assert sorted(names) == ["input.content.y", "input.z", "tools.w", "v"]
    assert refusal(serve(state={"is_strict": True}), **fields)["code"] == "unknown_parameter"


def test_another_model(service: Any) -> None:
    with pytest.raises(openai.NotFoundError):
        ask(service, model="other")


def test_a_failure_within_the_stream(serve: Callable[..., Any]) -> None:
    """The stream tells of it twice, and is cut."""
    service = serve(failure=FinishReason.ERROR)
    body = {"model": "tiny", "input": "Hi", "stream": True}
    pieces: list[str] = []
    with (
        service.http.stream("POST", "/v1/responses", json=body) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        pieces.extend(response.iter_text())
    failed, error = parse_events("".join(pieces))[-2:]
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {
        "code": "server_error",
        "message": "the logits are not finite",
    }
    (item,) = failed["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hello, world!")
    assert (error["type"], error["code"]) == ("error", "engine_error")
    assert post(service).status_code == 500


def test_a_format_beside_tools(serve_thinker: Callable[..., Any]) -> None:
    service = serve_thinker("{}")
    post(service, tools=TOOLS, text={"format": {"type": "json_object"}})
    assert params_of(service).grammar.kind is GrammarKind.LARK
    assert "text: %json" in params_of(service).grammar.text


def test_the_client_leaves(serve: Callable[..., Any]) -> None:
    service = serve(step_s=0.01, text=lambda request: "x" * 150)
    with ask(service, stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    assert service.engine.wait_finished() == [FinishReason.ABORT]


def test_tokens_are_counted(service: Any) -> None:
    counted = service.client.responses.input_tokens.count(
        model="tiny", input="Hi", instructions="Be brief."
    )
    post(service, instructions="Be brief.")
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == len(service.engine.requests[0].prompt_ids)
    assert service.post("/v1/responses/input_tokens", {"input": "Hi"}).status_code == 200
