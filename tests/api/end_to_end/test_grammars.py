"""Structured output from a real `leadline serve`: checked, compiled, and kept to."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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
    settings |= {"max_tokens": fields.pop("max_tokens")} if "max_tokens" in fields else {}
    return client.chat.completions.create(
        model="demo", messages=MESSAGES, extra_body=fields, **settings, **known
    )


def test_a_json_schema(client: openai.OpenAI) -> None:
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answer = ask(client, response_format=response_format, n=4)
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ever_new_schemas(client: openai.OpenAI, service: Any) -> None:
    """What server and engine keep of them is bounded; what they take at first is not counted."""

    def ask_for(number: int) -> None:
        properties = {f"p{number}_{at}": {"type": "integer", "minimum": at} for at in range(20)}
        schema = {"type": "object", "properties": properties}
        ask(client, structured_outputs={"json": schema}, max_tokens=1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask_for, range(100)))
        pids = (service.popen.pid, service.engine_pid())
        before = [resident_bytes(pid) for pid in pids]
        list(pool.map(ask_for, range(100, 300)))
    after = [resident_bytes(pid) for pid in pids]
    assert all(a - b < 100 * 2**20 for a, b in zip(after, before, strict=True)), (before, after)


@pytest.mark.parametrize("depth", [0, 3])
def test_an_object_that_is_cut_off(client: openai.OpenAI, depth: int) -> None:
    """A valid beginning at any length, also where drafts of the grammar were refused."""
    fields: Any = {"structured_outputs": {"json": SCHEMA}, "speculative_tokens": depth}
    (whole,) = ask(client, **fields).choices
    for max_tokens in (1, 4, 9, 14):
        (choice,) = ask(client, **fields, max_tokens=max_tokens).choices
        assert choice.finish_reason == "length"
        assert choice.message.content
        assert whole.message.content.startswith(choice.message.content)


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


BATTERY: dict[str, dict[str, Any]] = {
    "no JSON": {"json": "{"},
    "nested 3,000 deep": {"json": '{"items":' * 3000 + "{}" + "}" * 3000},
    "remote reference": {"json": {"$ref": "http://example.com/schema.json"}},
    "endless reference": {"json": {"$ref": "#"}},
    "enum of nothing": {"json": {"enum": []}},
    "contradiction": {"json": {"type": "string", "minLength": 5, "maxLength": 2}},
    "8,000 properties": {"json": {"properties": {f"p{i}": {} for i in range(8000)}}},
    "prime multiples": {"json": {"type": "integer", "multipleOf": 1_000_003}},
    "too long": {"json": {"const": "x" * 300_000}},
    "open group": {"regex": "(a+"},
    "look-ahead": {"regex": "(?=a)b"},
    "back-reference": {"regex": r"(a)\1"},
    "undefined rule": {"grammar": "start: nothing"},
    "endless rule": {"grammar": 'start: "a" start'},
    "no choice": {"choice": []},
}


def test_a_battery_of_bad_grammars_troubles_no_stream(client: openai.OpenAI) -> None:
    """Each is a 400 of its own; streams beside them go on, and say what they say alone."""

    def stream(seed: int) -> str:
        chunks = client.chat.completions.create(
            model="demo",
            messages=MESSAGES,
            stream=True,
            temperature=1.0,
            seed=seed,
            max_tokens=120,
            extra_body={"ignore_eos": True},
        )
        return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)

    alone = [stream(seed) for seed in range(3)]
    with ThreadPoolExecutor(8) as pool:
        beside = [pool.submit(stream, seed) for seed in range(3)]
        while not all(future.done() for future in beside):
            bad = {
                name: pool.submit(ask, client, structured_outputs=outputs)
                for name, outputs in BATTERY.items()
            }
            for name, future in bad.items():
                error = future.exception(timeout=60)
                # Where many come at once, one may be told to come again; none is let through.
                assert isinstance(error, openai.BadRequestError | openai.RateLimitError), name
        assert [future.result() for future in beside] == alone
    for outputs in BATTERY.values():
        with pytest.raises(openai.BadRequestError):
            ask(client, structured_outputs=outputs)


def test_limits_that_the_operator_sets(start_service: Any, model: str, tmp_path: Path) -> None:
    """More processor time than usual, but less by the clock: another limit ends the same check."""
    flags = ("--limit", "grammar_cpu_s=60", "--limit", "grammar_s=0.05")
    with (
        start_service(tmp_path / "log", model, *flags) as process,
        openai.OpenAI(base_url=f"{process.url}/v1", api_key="-", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="in time"),
    ):
        ask(client, structured_outputs=BATTERY["prime multiples"])
