"""Command line flags from the fields of config dataclasses: neither lacks what the other has."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmgKMG]?)")
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
_OPEN = (None, "auto", ())  # defaults that the help text explains itself


@dataclasses.dataclass(frozen=True, slots=True)
class Alias:
    """Another flag for a field; only one of the two may be given.

    Attributes:
        parse: the flag's text to the field's value.
    """

    flag: str
    parse: Callable[[str], Any]
    metavar: str
    help: str


def integer(text: str) -> int:
    """A whole number, as `4096`, `4k` (4000), `4K` (4096), `1.5m` or `2M`.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    match = _NUMBER.fullmatch(text)
    if match:
        value = Fraction(match[1]) * _FACTORS[match[2]]
        if value.denominator == 1:
            return value.numerator
    raise argparse.ArgumentTypeError(
        f"{text!r} is no whole number from 0 on; write it as 4096, 4k (4000) or 4K (4096)"
    )


def number(text: str) -> float:
    """A number.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} has not the form operation=name")
    return name, value


def flag_of(name: str) -> str:
    """The flag of a field: `drain_timeout_s` is `--drain-timeout`."""
    return "--" + name.removesuffix("_s").replace("_", "-")


def fields_of(config_type: type) -> "dict[str, dataclasses.Field[Any]]":
    """The fields of a dataclass, by name."""
    return {field.name: field for field in dataclasses.fields(config_type)}


def add_flag(
    group: argparse._ActionsContainer,
    config_type: type,
    name: str,
    *,
    alias: Alias | None = None,
    is_shown: bool = True,
    shows_alias: bool = True,
) -> None:
    """Add the flag of a field; where it is not given, it stays unset.

    Args:
        group: gets the flag.
        config_type: dataclass whose fields have `help` and `choices` in their metadata.
        name: of the field.
        alias: another flag for it.
        is_shown: in the help.
        shows_alias: there too.
    """
    field = fields_of(config_type)[name]
    hint = typing.get_type_hints(config_type)[name]
    one_of = group if alias is None else group.add_mutually_exclusive_group()
    one_of.add_argument(
        flag_of(name),
        dest=name,
        default=argparse.SUPPRESS,
        help=_help(field) if is_shown else argparse.SUPPRESS,
        **_parsing(field, hint),
    )
    if alias is not None:
        one_of.add_argument(
            alias.flag,
            dest=name,
            default=argparse.SUPPRESS,
            type=alias.parse,
            metavar=alias.metavar,
            help=alias.help if is_shown and shows_alias else argparse.SUPPRESS,
        )


def values_from(args: argparse.Namespace, config_types: Iterable[type]) -> dict[str, Any]:
    """What the flags that were given say, by field."""
    given: dict[str, Any] = {}
    for config_type in config_types:
        for name, hint in typing.get_type_hints(config_type).items():
            if not hasattr(args, name):
                continue
            given[name] = value = getattr(args, name)
            if isinstance(value, list):  # of a flag that may be repeated
                is_tuple = typing.get_origin(hint) is tuple
                given[name] = tuple(value) if is_tuple else dict(value)
    return given


def _parsing(field: "dataclasses.Field[Any]", hint: Any) -> dict[str, Any]:
    kind = _without_none(hint)
    if typing.get_origin(kind) is Mapping:
        return {"action": "append", "type": _assignment, "metavar": "OPERATION=NAME"}
    if typing.get_origin(kind) is tuple:
        return {"action": "append", "metavar": "TEXT"}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if choices := field.metadata["choices"]:
        return {"choices": choices}
    types_and_names = {int: (integer, "N"), float: (number, "X"), str: (str, "TEXT")}
    parse, metavar = types_and_names[kind]
    return {"type": parse, "metavar": metavar}


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    return hint


def _help(field: "dataclasses.Field[Any]") -> str:
    text: str = field.metadata["help"]
    if field.default is dataclasses.MISSING or field.default in _OPEN:
        return text.replace("%", "%%")
    default = field.default
    if isinstance(default, bool):  # 1 and 0 equal them
        default = "on" if default else "off"
    return f"{text} (default: {default})".replace("%", "%%")
