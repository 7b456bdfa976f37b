"""Values of config fields as YAML has them: what their flags would make of them."""

import argparse
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from leadline.engine.errors import ConfigError
from leadline.server.flags import integer, number

_MAX_SHOWN = 60


def field_value(name: str, value: Any, hint: Any, choices: tuple[str, ...] | None) -> Any:
    """The value of a field.

    Args:
        name: of the field, for errors.
        value: what YAML has read: a scalar, a list or a mapping.
        hint: the field's type.
        choices: its allowed values, or None.

    Raises:
        ConfigError: the field cannot have the value; names both, and what is allowed.
    """
    if type(None) in typing.get_args(hint):
        if value is None:
            return None
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    kind = typing.get_origin(hint) or hint
    try:
        taken = _READERS[kind](value)
    except (ValueError, argparse.ArgumentTypeError):
        raise ConfigError(f"{name} is {_shown(value)}; allowed: {_ALLOWED[kind]}") from None
    if choices and taken not in choices:
        raise ConfigError(f"{name} is {_shown(value)}; allowed: {', '.join(choices)}")
    return taken


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _int(value: Any) -> int:
    if isinstance(value, str):
        return integer(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError
    return value


def _float(value: Any) -> float:
    if isinstance(value, str):  # YAML takes 1e-3 for a text
        return number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    return float(value)


def _str(value: Any) -> str:
    if isinstance(value, Mapping):  # what a flag takes as JSON may be written out
        return json.dumps(value)
    if not isinstance(value, str):
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):  # limit: {body_bytes: 64M}
        return tuple(f"{key}={item}" for key, item in value.items())
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError
    return tuple(items)


def _names(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError
    pairs = dict(value)
    if not all(isinstance(part, str) for pair in pairs.items() for part in pair):
        raise ValueError
    return pairs


_READERS: dict[Any, Callable[[Any], Any]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _str,
    tuple: _texts,
    Mapping: _names,
}
_ALLOWED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number, as 4096, 4k (4000) or 4K (4096)",
    float: "a number",
    str: "a text (in quotes if it looks like a number)",
    tuple: "a text or a list of texts (in quotes if they look like numbers)",
    Mapping: "names and values, as operation: name",
}


def plain(value: Any) -> Any:
    """A field's value as YAML writes it."""
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value
