"""The text of a grammar before it is compiled: its size, and what a JSON schema may hold."""

import json
from typing import Any

from leadline.engine.bounds import GRAMMAR_BYTES
from leadline.engine.errors import InvalidRequestError
from leadline.engine.request import Grammar, GrammarKind

NAMES = {
    GrammarKind.JSON_SCHEMA: "the JSON schema",
    GrammarKind.REGEX: "the regular expression",
    GrammarKind.LARK: "the grammar",
}
"""What messages call it."""


def check_size(grammar: Grammar, max_bytes: int = GRAMMAR_BYTES) -> None:
    """Look at what costs nothing to see; `max_bytes` as UTF-8.

    Raises:
        InvalidRequestError: the text is too long, or cannot be written as UTF-8.
    """
    name = NAMES[grammar.kind]
    try:
        num_bytes = len(grammar.text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name} holds half of a surrogate pair") from None
    if num_bytes > max_bytes:
        raise InvalidRequestError(f"{name} is {num_bytes} bytes long; allowed: at most {max_bytes}")


def read_schema(text: str) -> dict[str, Any]:
    """A schema as llguidance should see it.

    Its `$schema` is dropped: with an older draft, the keywords of a newer one would be ignored
    where now they are an error.

    Raises:
        ValueError: it is no JSON object, or has options for llguidance, which are ours.
    """
    try:
        schema = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(schema, dict):
        raise ValueError("it must be a JSON object")
    if "x-guidance" in schema:
        raise ValueError("'x-guidance' is not supported; leave it out")
    schema.pop("$schema", None)
    return schema


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
