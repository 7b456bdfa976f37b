"""Grammars as users write them (Lark, or GBNF with `root ::=`), as llguidance's Lark."""

import re

from llguidance.gbnf_to_lark import gbnf_to_lark

from leadline.engine.errors import InvalidRequestError
from leadline.engine.grammar.limits import MAX_GBNF_BYTES
from leadline.engine.grammar.messages import shortened

_GBNF_RULE = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
_LARK_START = re.compile(r"^[ \t]*(%llguidance\b|[?!]*start[ \t]*:(?!:=))", re.MULTILINE)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)
_MAX_ASCII = 0x7F
_SURROGATES = range(0xD800, 0xE000)


def to_lark(text: str) -> str:
    """Convert GBNF (also called EBNF); a Lark grammar is returned as it is.

    Raises:
        InvalidRequestError: it is GBNF, and wrong, or too large.
    """
    if _LARK_START.search(text) or not _GBNF_RULE.search(text):
        return text
    if len(text.encode()) > MAX_GBNF_BYTES:
        raise InvalidRequestError(
            f"the grammar is in GBNF and longer than {MAX_GBNF_BYTES} bytes; write it in Lark"
        )
    try:
        return str(gbnf_to_lark(_ESCAPE.sub(_plain, text)))
    except RecursionError:
        raise InvalidRequestError("the grammar is nested too deeply") from None
    except Exception as error:  # the converter raises bare ones
        raise InvalidRequestError(
            f"the grammar is not valid GBNF: {shortened(str(error))}"
        ) from error


def _plain(match: re.Match[str]) -> str:
    """An escape as the converter gets it right: it drops the zeros of a `u0041`."""
    digits = match[1] or match[2]
    if digits is None:
        return match[0]
    code = int(digits, 16)
    if code > 0x10FFFF or code in _SURROGATES:
        raise ValueError(f"{match[0]} is no character")
    return f"\\x{code:02x}" if code <= _MAX_ASCII else chr(code)
