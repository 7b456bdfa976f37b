"""Tool calls that must come, or must match their schemas, as a grammar."""

import json
import re
from typing import Any

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.source import check_size, read_schema
from leadline.engine.request import Grammar, GrammarKind
from leadline.server.dialects.dialect import Dialect, Mark
from leadline.server.dialects.tool_types import Function, ToolUse
from leadline.server.errors import BadRequestError

_NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}
_JSON_OPTIONS = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_pattern": r" |\r?\n[ ]{0,40}|\r?\n\t{1,10}",  # no blanks for ever
    "whitespace_flexible": True,
    "coerce_one_of": False,
    "lenient": False,  # what cannot be enforced is an error
}
_SLASH_OR_LINE = re.compile(r"\\.|/|\n", re.DOTALL)


def call_grammar(dialect: Dialect, use: ToolUse, text: Grammar | None = None) -> Grammar:
    """What an answer must match so that its calls, and its text, are as they should be.

    Calls that must come are all of the answer, and match their schemas. Calls that may come are
    at its end, after any text; those of tools that are not strict have any object as arguments.
    Where the text must match something too, the answer is either text or calls.

    Args:
        dialect: how calls are written.
        use: what is asked for about them.
        text: what text must match, a schema or a regular expression; None for any text.

    Raises:
        BadRequestError: the schemas are too large, or cannot be written as JSON.
        InvalidRequestError: `text` is no JSON schema.
    """
    rules = [] if text is None else [f"text: {_text_rule(text)}"]
    for index, tool in enumerate(use.callable):
        is_kept = use.is_forced or bool(tool.function.strict)
        schema = _schema(tool.function, index) if is_kept else {"type": "object"}
        rules.append(f"call{index}: {dialect.call_rule(tool.function.name, f'arguments{index}')}")
        rules.append(f"arguments{index}: %json {_json({**schema, 'x-guidance': _JSON_OPTIONS})}")
    between = json.dumps(dialect.between_calls) + " " if dialect.between_calls else ""
    more = "" if use.max_calls == 1 else f" ({between}call)*"
    begin, end = dialect.lark(Mark.CALLS_BEGIN), dialect.lark(Mark.CALLS_END)
    lines = [
        f"start: {_start(use, text)}",
        f"calls: {begin} call{more} {end}",
        "call: " + " | ".join(f"call{index}" for index in range(len(use.callable))),
        *rules,
    ]
    if not use.is_forced and text is None:
        lines.append(r"TEXT: /(.|\n)*/")
    grammar = Grammar(GrammarKind.LARK, "\n".join(lines) + "\n")
    try:
        check_size(grammar)
    except InvalidRequestError as error:
        raise tools_refusal(error) from error
    return grammar


def tools_refusal(error: InvalidRequestError) -> BadRequestError:
    """How a caller is told that the grammar of `call_grammar` is refused."""
    return BadRequestError(
        f"the schemas of 'tools' cannot be kept to: {error}; simplify them, or set 'tool_choice' "
        "to 'auto' and leave out 'strict'",
        param="tools",
        code="invalid_json_schema",
    )


def _start(use: ToolUse, text: Grammar | None) -> str:
    if use.is_forced:
        return "calls"
    return "TEXT calls?" if text is None else "text | calls"


def _text_rule(text: Grammar) -> str:
    if text.kind is GrammarKind.REGEX:
        return f"/{_SLASH_OR_LINE.sub(_escaped, text.text)}/"
    assert text.kind is GrammarKind.JSON_SCHEMA
    try:
        schema = read_schema(text.text)
    except ValueError as error:
        raise InvalidRequestError(f"the JSON schema is not valid: {error}") from error
    return f"%json {_json({**schema, 'x-guidance': _JSON_OPTIONS})}"


def _escaped(found: re.Match[str]) -> str:
    """What stands in a regular expression of Lark, between slashes on one line."""
    piece = found[0]
    if piece in ("/", "\n"):
        return {"/": r"\/", "\n": r"\n"}[piece]
    return r"\n" if piece == "\\\n" else piece


def _schema(function: Function, index: int) -> dict[str, Any]:
    if function.parameters is None:
        return _NO_PARAMETERS
    if "x-guidance" in function.parameters:
        param = f"tools[{index}].function.parameters"
        raise BadRequestError(
            f"'{param}' has 'x-guidance', which is not supported; leave it out",
            param=param,
            code="invalid_json_schema",
        )
    schema = {"type": "object", **function.parameters}
    # With an older draft, keywords of a newer one would be ignored where now they are an error.
    schema.pop("$schema", None)
    return schema


def _json(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (RecursionError, ValueError):
        raise BadRequestError(
            "a schema of 'tools' is nested too deeply, or holds a number that is not finite",
            param="tools",
            code="invalid_json_schema",
        ) from None
