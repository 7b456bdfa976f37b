"""The Responses API of the built-in model, from a real `leadline serve`."""

import json
import time
from typing import Any

import jsonschema
import openai

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}]


def test_reasoning_and_a_call_streamed_and_whole(client: openai.OpenAI) -> None:
    fields: Any = {
        "model": "demo",
        "input": "What is the weather in Rome?",
        "instructions": "Be brief.",
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "low"},
        "max_output_tokens": 300,
        "extra_body": {"seed": 5, "thinking_token_budget": 20},
    }
    whole = client.responses.create(**fields)
    with client.responses.stream(**fields) as stream:
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        assert response.status == "completed"
        reasoning, call = response.output
        assert (reasoning.type, call.type) == ("reasoning", "function_call")
        assert call.name == "get_weather"
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)
    first, second = ([*response.output] for response in (whole, streamed))
    assert first[0].content == second[0].content  # type: ignore[union-attr]
    assert first[1].arguments == second[1].arguments  # type: ignore[union-attr]
    usage = whole.usage
    assert usage is not None
    assert 0 < usage.output_tokens_details.reasoning_tokens <= 20
    counted = client.responses.input_tokens.count(
        **{name: fields[name] for name in ("model", "input", "instructions", "tools", "reasoning")}
    )
    assert counted.input_tokens == usage.input_tokens


def test_a_conversation_that_is_kept(client: openai.OpenAI) -> None:
    fields: Any = {"model": "demo", "max_output_tokens": 12, "extra_body": {"seed": 1}}
    first = client.responses.create(input="Hello!", **fields)
    kept = client.responses.create(input="Again.", previous_response_id=first.id, **fields)
    sent: Any = [
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "Again."},
    ]
    assert client.responses.create(input=sent, **fields).output_text == kept.output_text
    queued = client.responses.create(
        input="Again.", previous_response_id=first.id, background=True, **fields
    )
    while (made := client.responses.retrieve(queued.id)).status in ("queued", "in_progress"):
        time.sleep(0.02)
    assert made.output_text == kept.output_text
    client.responses.delete(first.id)
