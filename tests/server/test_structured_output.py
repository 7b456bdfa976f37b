import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.compilation import compile_grammar
from leadline.engine.grammar.matcher import GrammarMatcher
from leadline.engine.grammar.tokens import GrammarTokens, read_tokens
from leadline.engine.request import Grammar, GrammarKind
from leadline.loader.hub import resolve_model
from leadline.loader.tokenizer import Tokenizer
from leadline.server.errors import BadRequestError
from leadline.server.structured_output import (
    ResponseFormat,
    StructuredOutputs,
    grammar_of,
    grammar_refusal,
    structured_outputs_of,
)

SCHEMA = {"type": "object", "properties": {"b": {"type": "null"}, "a": {}}}
TEXT = '{"type":"object","properties":{"b":{"type":"null"},"a":{}}}'


def of_format(value: dict[str, Any]) -> Grammar | None:
    return grammar_of(ResponseFormat.model_validate(value), None)


def of_outputs(value: dict[str, Any]) -> Grammar | None:
    return grammar_of(None, StructuredOutputs.model_validate(value))


@pytest.fixture(scope="module")
def tokens() -> GrammarTokens:
    return read_tokens(resolve_model("leadline-demo"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(resolve_model("leadline-demo"))


def test_response_format() -> None:
    assert grammar_of(None, None) is None
    assert of_format({"type": "text"}) is None
    assert of_format({"type": "json_object"}) == Grammar(
        GrammarKind.JSON_SCHEMA, '{"type":"object"}'
    )
    named = {"name": "x", "schema": SCHEMA, "strict": False, "description": "d"}
    # The order of properties is the order of the answer.
    assert of_format({"type": "json_schema", "json_schema": named}) == Grammar(
        GrammarKind.JSON_SCHEMA, TEXT
    )


@pytest.mark.parametrize(
    ("value", "grammar"),
    [
        ({"json": SCHEMA}, Grammar(GrammarKind.JSON_SCHEMA, TEXT)),
        ({"json": '{"type": "null"}'}, Grammar(GrammarKind.JSON_SCHEMA, '{"type": "null"}')),
        ({"regex": "a+", "json_object": False}, Grammar(GrammarKind.REGEX, "a+")),
        ({"grammar": "start: A"}, Grammar(GrammarKind.LARK, "start: A")),
        ({"json_object": True}, Grammar(GrammarKind.JSON_SCHEMA, '{"type":"object"}')),
        (
            {"regex": "a", "disable_any_whitespace": False, "structural_tag": None},
            Grammar(GrammarKind.REGEX, "a"),
        ),
    ],
)
def test_structured_outputs(value: dict[str, Any], grammar: Grammar) -> None:
    assert of_outputs(value) == grammar


@pytest.mark.parametrize(
    ("response_format", "outputs", "param", "code"),
    [
        (
            {"type": "json_schema"},
            None,
            "response_format.json_schema.schema",
            "invalid_json_schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "x"}},
            None,
            "response_format.json_schema.schema",
            "invalid_json_schema",
        ),
        ({"type": "json_object"}, {"regex": "a"}, "structured_outputs", "invalid_grammar"),
        (None, {}, "structured_outputs", "invalid_grammar"),
        (None, {"json_object": False}, "structured_outputs", "invalid_grammar"),
        (None, {"regex": "a", "choice": ["a"]}, "structured_outputs", "invalid_grammar"),
        (None, {"choice": []}, "structured_outputs.choice", "invalid_grammar"),
        (None, {"regex": "a" * 5_000_000}, "structured_outputs.regex", "invalid_grammar"),
        (
            None,
            {"json": {"const": "a" * 5_000_000}},
            "structured_outputs.json",
            "invalid_json_schema",
        ),
        (
            None,
            {"json": {"minimum": float("inf")}},
            "structured_outputs.json",
            "invalid_json_schema",
        ),
        (
            None,
            {"structural_tag": "{}"},
            "structured_outputs.structural_tag",
            "unsupported_parameter",
        ),
        (
            None,
            {"regex": "a", "disable_any_whitespace": True},
            "structured_outputs.disable_any_whitespace",
            "unsupported_parameter",
        ),
        (None, {"regexp": "a"}, "structured_outputs.regexp", "unsupported_parameter"),
    ],
)
def test_refusals(
    response_format: dict[str, Any] | None,
    outputs: dict[str, Any] | None,
    param: str,
    code: str,
) -> None:
    with pytest.raises(BadRequestError) as caught:
        grammar_of(
            None if response_format is None else ResponseFormat.model_validate(response_format),
            None if outputs is None else StructuredOutputs.model_validate(outputs),
        )
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param.split(".")[0] in str(caught.value) or "long" in str(caught.value)


def test_a_text_format_beside_structured_outputs() -> None:
    grammar = grammar_of(
        ResponseFormat.model_validate({"type": "text"}),
        StructuredOutputs.model_validate({"regex": "a"}),
    )
    assert grammar == Grammar(GrammarKind.REGEX, "a")


def test_a_schema_that_is_nested_too_deeply() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(BadRequestError, match="nested too deeply"):
        grammar_of(None, StructuredOutputs.model_construct(json_=schema))
    while schema:
        schema = schema["items"]


@pytest.mark.parametrize(
    ("guided", "outputs"),
    [
        ({"guided_json": SCHEMA}, {"json": SCHEMA}),
        ({"guided_json": "{}", "guided_regex": None}, {"json": "{}"}),
        ({"guided_regex": "a"}, {"regex": "a"}),
        ({"guided_choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"guided_grammar": "start: A"}, {"grammar": "start: A"}),
    ],
)
def test_guided_fields(guided: dict[str, Any], outputs: dict[str, Any]) -> None:
    assert structured_outputs_of(None, guided) == StructuredOutputs.model_validate(outputs)


def test_guided_fields_that_say_nothing() -> None:
    outputs = StructuredOutputs.model_validate({"regex": "a"})
    assert structured_outputs_of(outputs, {"guided_json": None}) is outputs
    assert structured_outputs_of(None, {}) is None


@pytest.mark.parametrize(
    ("outputs", "guided", "param", "code"),
    [
        ({"regex": "a"}, {"guided_regex": "a"}, "guided_regex", "invalid_grammar"),
        (None, {"guided_regex": "a", "guided_json": {}}, "guided_json", "invalid_grammar"),
        (None, {"guided_json": 3}, "guided_json", "invalid_json_schema"),
        (None, {"guided_choice": "a"}, "guided_choice", "invalid_grammar"),
    ],
)
def test_guided_refusals(
    outputs: dict[str, Any] | None, guided: dict[str, Any], param: str, code: str
) -> None:
    given = None if outputs is None else StructuredOutputs.model_validate(outputs)
    with pytest.raises(BadRequestError, match=re.escape(param)) as caught:
        structured_outputs_of(given, guided)
    assert (caught.value.param, caught.value.code) == (param, code)


def test_what_the_checker_refuses() -> None:
    error = InvalidRequestError("the JSON schema cannot be used: so it is")
    schema, regex = Grammar(GrammarKind.JSON_SCHEMA, "{}"), Grammar(GrammarKind.REGEX, "(")
    refusal = grammar_refusal(error, schema, ResponseFormat(type="json_object"))
    assert (refusal.param, refusal.code) == ("response_format", "invalid_json_schema")
    assert json.loads(refusal.body())["error"]["message"] == str(error)
    refusal = grammar_refusal(error, regex, None)
    assert (refusal.param, refusal.code) == ("structured_outputs", "invalid_grammar")


CHOICES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\t\\/"<>(|)[].*\0 '), max_size=6
)


@given(texts=st.lists(CHOICES, min_size=1, max_size=5, unique=True), other=CHOICES)
def test_choices_are_exact(
    texts: list[str], other: str, tokens: GrammarTokens, tokenizer: Tokenizer
) -> None:
    grammar = of_outputs({"choice": texts})
    assert grammar is not None
    for text in [*texts, other]:
        matcher = GrammarMatcher(compile_grammar(grammar, tokens), tokens)
        token_ids = [*tokenizer.encode(text), min(tokens.end_ids)]
        assert (matcher.accept(token_ids) == len(token_ids)) == (text in texts)
