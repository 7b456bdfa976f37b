"""Structured output from a real `leadline serve`: checked, compiled, and kept to."""

import json
import re
from typing import Any

import jsonschema
import openai
import pytest

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "size", "tags"],
    "additionalProperties": False,
}
MESSAGES: list[Any] = [{"role": "user", "content": "Describe `itertools.chain`."}]


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    known = {name: fields.pop(name) for name in ("response_format", "n") if name in fields}
    settings = {"temperature": 1.0, "top_p": 1.0, "seed": 3, "max_tokens": 200}
    return client.chat.completions.create(
        model="demo", messages=MESSAGES, extra_body=fields, **settings, **known
    )


def test_a_json_schema(client: openai.OpenAI) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answer = ask(client, response_format=response_format, n=4)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_speculation_does_not_change_it(client: openai.OpenAI) -> None:
    texts = [
        ask(client, structured_outputs={"json": SCHEMA}, speculative_tokens=depth)
        .choices[0]
        .message.content
        for depth in (0, 1)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("outputs", "pattern"),
    [
        ({"structured_outputs": {"regex": "[a-c]{3}-[0-9]{2}"}}, "[a-c]{3}-[0-9]{2}"),
        ({"structured_outputs": {"choice": ["red (or so)", "green"]}}, r"red \(or so\)|green"),
        ({"structured_outputs": {"grammar": 'root ::= "yes" | "no"'}}, "yes|no"),
        ({"guided_choice": ["left", "right"]}, "left|right"),
        ({"guided_regex": "x{3}"}, "xxx"),
    ],
)
def test_other_forms(client: openai.OpenAI, outputs: dict[str, Any], pattern: str) -> None:
    (choice,) = ask(client, **outputs).choices
    assert re.fullmatch(pattern, choice.message.content)
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize(
    "outputs",
    [
        {"structured_outputs": {"json": {"not": {}}}},
        {"structured_outputs": {"json": {"type": "integer", "multipleOf": 1_000_003}}},
        {"structured_outputs": {"regex": "("}},
        {"guided_grammar": 'start: "a" start'},
        {"response_format": {"type": "json_object"}, "guided_regex": "a"},
    ],
)
def test_refusals(client: openai.OpenAI, outputs: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **outputs)
    assert caught.value.type == "invalid_request_error"
