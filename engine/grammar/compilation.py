"""From the text of a grammar to a matcher at its beginning."""

import json
from typing import TYPE_CHECKING

from llguidance import LLMatcher

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.gbnf import to_lark
from leadline.engine.grammar.limits import parser_limits
from leadline.engine.grammar.messages import shortened
from leadline.engine.grammar.source import NAMES, check_size, read_schema
from leadline.engine.grammar.tokens import GrammarTokens
from leadline.engine.request import Grammar, GrammarKind

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # a name for type checkers alone

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


def compile_grammar(grammar: Grammar, tokens: GrammarTokens) -> LLMatcher:
    """Compile a grammar; may take long, or all memory, if it has not been checked before.

    Raises:
        InvalidRequestError: it is wrong or too complex, in llguidance's words, shortened.
    """
    check_size(grammar)
    name = NAMES[grammar.kind]
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
