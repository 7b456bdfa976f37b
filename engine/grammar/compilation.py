"""From the text of a grammar to a matcher at its beginning."""

import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from leadline.engine.bounds import GRAMMAR_BYTES
from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.gbnf import to_lark
from leadline.engine.grammar.limits import parser_limits
from leadline.engine.grammar.messages import shortened
from leadline.engine.grammar.tokens import GrammarTokens
from leadline.engine.request import Grammar, GrammarKind

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # a name for type checkers alone

_NAMES = {
    GrammarKind.JSON_SCHEMA: "the JSON schema",
    GrammarKind.REGEX: "the regular expression",
    GrammarKind.LARK: "the grammar",
}
# One blank, or a new line and its indentation: pretty-printed JSON, but not blanks for ever.
_WHITESPACE = r" |\r?\n[ ]{0,40}|\r?\n\t{1,10}"
_JSON_OPTIONS: "JsonCompileOptions" = {
    "item_separator": ",",
    "key_separator": ":",
    "whitespace_pattern": _WHITESPACE,
    "whitespace_flexible": True,
    "coerce_one_of": False,
    "lenient": False,  # what cannot be enforced is an error
    "json_allowed_escapes": 'nrbtf\\"u',
    "json_allow_general_unicode_escapes": False,
}


def check_size(grammar: Grammar, max_bytes: int = GRAMMAR_BYTES) -> None:
    """Look at what costs nothing to see; `max_bytes` as UTF-8.

    Raises:
        InvalidRequestError: the text is too long, or cannot be written as UTF-8.
    """
    name = _NAMES[grammar.kind]
    try:
        num_bytes = len(grammar.text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name} holds half of a surrogate pair") from None
    if num_bytes > max_bytes:
        raise InvalidRequestError(f"{name} is {num_bytes} bytes long; allowed: at most {max_bytes}")


def compile_grammar(grammar: Grammar, tokens: GrammarTokens) -> LLMatcher:
    """Compile a grammar; may take long, or all memory, if it has not been checked before.

    Raises:
        InvalidRequestError: it is wrong or too complex, in llguidance's words, shortened.
    """
    check_size(grammar)
    name = _NAMES[grammar.kind]
    try:
        source = _source(grammar)
    except ValueError as error:
        raise InvalidRequestError(f"{name} is not valid: {shortened(str(error))}") from error
    matcher = LLMatcher(tokens.trie, source, log_level=0, limits=parser_limits())
    if matcher.is_error():
        reason = shortened(matcher.get_error())
        raise InvalidRequestError(f"{name} cannot be used: {reason}")
    return matcher


def _source(grammar: Grammar) -> str:
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            schema = read_schema(grammar.text)
            return LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_JSON_OPTIONS)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(grammar.text)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(to_lark(grammar.text))


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
