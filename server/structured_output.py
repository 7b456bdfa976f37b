"""`response_format`, `structured_outputs` and other servers' names for it, as one grammar."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.source import check_size
from leadline.engine.request import Grammar, GrammarKind
from leadline.server.errors import BadRequestError, unsupported

OUTPUT_ALIASES: Mapping[str, str] = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "regex": "regex",
    "ebnf": "grammar",
    "json_schema": "json",
}
"""vLLM's older fields and SGLang's, each with what it is called in `structured_outputs`."""

_FORMS = ("json", "regex", "choice", "grammar", "json_object")
_ANY_OBJECT = '{"type":"object"}'
# vLLM's further settings; each with the value that asks for what is done anyway.
_SETTINGS: Mapping[str, Any] = {
    "structural_tag": None,
    "whitespace_pattern": None,
    "disable_any_whitespace": False,
    "disable_additional_properties": False,
    "disable_fallback": True,
}


class JsonSchemaFormat(BaseModel):
    """OpenAI's `response_format.json_schema`; the schema is kept to whatever `strict` says."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """OpenAI's `response_format`."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class StructuredOutputs(BaseModel):
    """vLLM's `structured_outputs`: exactly one of the fields.

    Attributes:
        json_: a schema, as an object or as its text.
        choice: the answer is one of these texts.
        grammar: Lark, or GBNF (also called EBNF).
    """

    model_config = ConfigDict(strict=True, extra="allow")

    json_: Annotated[dict[str, Any] | str | None, Field(alias="json")] = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


def structured_outputs_of(
    structured_outputs: StructuredOutputs | None, guided: Mapping[str, Any]
) -> StructuredOutputs | None:
    """Take the fields of `OUTPUT_ALIASES` in.

    Args:
        structured_outputs: the request's own.
        guided: those of the fields that the request has, by name; null is as good as absent.

    Raises:
        BadRequestError: a value is of the wrong type, or more than one field is given.
    """
    given = {name: value for name, value in guided.items() if value is not None}
    if not given:
        return structured_outputs
    names = list(given) if structured_outputs is None else ["structured_outputs", *given]
    if len(names) > 1:
        raise _refusal(names[-1], f"{_listed(names)} are given; give one of them")
    ((name, value),) = given.items()
    try:
        return StructuredOutputs.model_validate({OUTPUT_ALIASES[name]: value})
    except ValidationError as error:
        reason = error.errors(include_url=False)[0]["msg"]
        raise _refusal(name, f"'{name}': {reason}", OUTPUT_ALIASES[name] == "json") from error


def grammar_of(
    response_format: ResponseFormat | None, structured_outputs: StructuredOutputs | None
) -> Grammar | None:
    """What the answer must match; None if nothing is asked of it.

    Raises:
        BadRequestError: not exactly one form is asked for, or its text cannot be one.
    """
    asks_for_json = response_format is not None and response_format.type != "text"
    if structured_outputs is not None and asks_for_json:
        raise _refusal(
            "structured_outputs",
            "'response_format' and 'structured_outputs' (or a 'guided_' field) both say what the "
            "answer must match; give one of them",
        )
    if structured_outputs is not None:
        param, grammar = _of_structured_outputs(structured_outputs)
    elif response_format is not None and asks_for_json:
        param, grammar = _of_response_format(response_format)
    else:
        return None
    try:
        check_size(grammar)
    except InvalidRequestError as error:
        raise _refusal(param, str(error), grammar.kind is GrammarKind.JSON_SCHEMA) from error
    return grammar


def grammar_refusal(
    error: InvalidRequestError, grammar: Grammar, response_format: ResponseFormat | None
) -> BadRequestError:
    """How a caller is told that `GrammarChecker.check` refuses what `grammar_of` has returned."""
    asks_for_json = response_format is not None and response_format.type != "text"
    param = "response_format" if asks_for_json else "structured_outputs"
    return _refusal(param, str(error), grammar.kind is GrammarKind.JSON_SCHEMA)


def _of_response_format(response_format: ResponseFormat) -> tuple[str, Grammar]:
    if response_format.type == "json_object":
        return "response_format", Grammar(GrammarKind.JSON_SCHEMA, _ANY_OBJECT)
    param = "response_format.json_schema"
    if response_format.json_schema is None or response_format.json_schema.schema_ is None:
        raise _refusal(
            f"{param}.schema", f"'{param}.schema' is required with the type 'json_schema'", True
        )
    schema = response_format.json_schema.schema_
    return f"{param}.schema", _of_schema(schema, f"{param}.schema")


def _of_structured_outputs(outputs: StructuredOutputs) -> tuple[str, Grammar]:
    for name, value in (outputs.model_extra or {}).items():
        if name not in _SETTINGS or value not in (None, _SETTINGS[name]):
            raise unsupported(
                f"structured_outputs.{name[:64]}", f"leave it out; allowed: {', '.join(_FORMS)}"
            )
    forms = {
        "json": outputs.json_,
        "regex": outputs.regex,
        "choice": outputs.choice,
        "grammar": outputs.grammar,
        "json_object": outputs.json_object or None,
    }
    given = {name: value for name, value in forms.items() if value is not None}
    if len(given) != 1:
        found = f"{_listed(list(given))} are given" if given else "it is empty"
        raise _refusal(
            "structured_outputs",
            f"'structured_outputs' must have exactly one of {', '.join(_FORMS)}; {found}",
        )
    ((name, value),) = given.items()
    param = f"structured_outputs.{name}"
    match name, value:
        case "json", _:
            return param, _of_schema(value, param)
        case "choice", list():
            return param, _of_choice(value, param)
        case "regex", str():
            return param, Grammar(GrammarKind.REGEX, value)
        case "grammar", str():
            return param, Grammar(GrammarKind.LARK, value)
    return param, Grammar(GrammarKind.JSON_SCHEMA, _ANY_OBJECT)


def _of_schema(schema: Any, param: str) -> Grammar:
    if isinstance(schema, str):
        return Grammar(GrammarKind.JSON_SCHEMA, schema)
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (RecursionError, ValueError):
        raise _refusal(
            param, f"'{param}' is nested too deeply, or holds a number that is not finite", True
        ) from None
    return Grammar(GrammarKind.JSON_SCHEMA, text)


def _of_choice(texts: list[str], param: str) -> Grammar:
    if not texts:
        raise _refusal(param, f"'{param}' has no texts; give at least one")
    return Grammar(GrammarKind.REGEX, "|".join(f"({_exactly(text)})" for text in texts))


def _exactly(text: str) -> str:
    """A regular expression that matches this text alone."""
    return "".join(
        character if character.isalnum() or not character.isascii() else f"\\x{ord(character):02x}"
        for character in text
    )


def _listed(names: list[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def _refusal(param: str, message: str, is_schema: bool = False) -> BadRequestError:
    code = "invalid_json_schema" if is_schema else "invalid_grammar"
    return BadRequestError(message, param=param, code=code)
