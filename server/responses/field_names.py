"""Errors of chat completions, with this API's names of the fields."""

import re

from leadline.server.errors import ApiError

_NAMES = (
    (r"\bmessages(\[\d+\])?", "input"),
    (r"\bresponse_format\.json_schema\b", "text.format"),
    (r"\bresponse_format\b", "text.format"),
    (r"\bmax_(?:completion_)?tokens\b", "max_output_tokens"),
    (r"\breasoning_effort\b", "reasoning.effort"),
    (r"\btool_choice\.allowed_tools\b", "tool_choice"),
    (r"(?<=tools\[)(\d+)\]\.function\b", r"\1]"),
)
_ONLY_QUOTED = re.compile(r"'[^' ]*'|\bmax_tokens\b")


def renamed(error: ApiError) -> ApiError:
    """The error, as callers of this API are told of it; it is changed in place."""
    if error.param is not None:
        error.param = _rename(error.param)
    message = _ONLY_QUOTED.sub(lambda match: _rename(match[0]), str(error))
    error.args = (message,)
    return error


def _rename(text: str) -> str:
    for name, own in _NAMES:
        text = re.sub(name, own, text)
    return text
