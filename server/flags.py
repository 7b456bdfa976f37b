"""Command line flags from the fields of config dataclasses: neither lacks what the other has."""

import argparse
import dataclasses
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from fractions import Fraction
from typing import Any, TypeVar

Config = TypeVar("Config")

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


def _number(text: str) -> float:
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


def add_flags(
    parser: argparse.ArgumentParser,
    config_type: type,
    *,
    title: str,
    skip: Collection[str] = (),
    aliases: Mapping[str, Alias] = types.MappingProxyType({}),
) -> None:
    """Add a flag for each field; flags that are not given stay unset.

    Args:
        parser: gets the flags, as a group.
        config_type: dataclass whose fields have `help` and `choices` in their metadata.
        title: of the group.
        skip: fields that the parser has already.
        aliases: further flags, by field.
    """
    hints = typing.get_type_hints(config_type)
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(config_type):
        if field.name in skip:
            continue
        alias = aliases.get(field.name)
        one_of = group if alias is None else group.add_mutually_exclusive_group()
        one_of.add_argument(
            flag_of(field.name),
            dest=field.name,
            default=argparse.SUPPRESS,
            help=_help(field),
            **_parsing(field, hints[field.name]),
        )
        if alias is not None:
            one_of.add_argument(
                alias.flag,
                dest=field.name,
                default=argparse.SUPPRESS,
                type=alias.parse,
                metavar=alias.metavar,
                help=alias.help,
            )


def config_from(args: argparse.Namespace, config_type: type[Config]) -> Config:
    """The config of the flags that were given; all else keeps its default."""
    hints = typing.get_type_hints(config_type)
    names = [field.name for field in dataclasses.fields(config_type)]  # type: ignore[arg-type]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    for name, value in given.items():
        if isinstance(value, list):  # of a flag that may be repeated
            is_tuple = typing.get_origin(hints[name]) is tuple
            given[name] = tuple(value) if is_tuple else dict(value)
    return config_type(**given)


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
    types_and_names = {int: (integer, "N"), float: (_number, "X"), str: (str, "TEXT")}
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
