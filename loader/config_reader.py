"""Typed access to the fields of a JSON object that collects every problem before it complains."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from leadline.loader.errors import ConfigFileError, UnsupportedModelError

T = TypeVar("T")


class ConfigReader:
    """Reads fields by name; a missing or bad one becomes a problem and a harmless stand-in.

    A field that is null counts as absent.
    """

    def __init__(
        self, raw: Mapping[str, Any], prefix: str = "", *, source: str = "config.json"
    ) -> None:
        self._raw = raw
        self._source = source
        self._prefix = prefix
        self._problems: list[str] = []
        self._unsupported: list[str] = []
        self._stand_ins: set[str] = set()

    @property
    def is_empty(self) -> bool:
        """Whether the object has no fields."""
        return not self._raw

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._raw.get(name) is not None

    def sound(self, *names: str) -> bool:
        """Whether none of these fields was missing or bad, so that they can be compared."""
        return self._stand_ins.isdisjoint(names)

    def section(self, name: str) -> "ConfigReader":
        """A nested object, empty if absent; its problems are this reader's."""
        value = self._raw.get(name)
        if value is not None and not isinstance(value, Mapping):
            self.problem(f"{self._prefix}{name} is {value!r}; it must be an object")
            value = None
        nested = ConfigReader(value or {}, f"{self._prefix}{name}.")
        nested._problems, nested._unsupported = self._problems, self._unsupported
        return nested

    def problem(self, text: str) -> None:
        """Remember a problem."""
        self._problems.append(text)

    def require(self, name: str, value: Any, *, present: bool = False) -> None:
        """The field must have this value, or may be absent unless `present`."""
        if (present or self.has(name)) and self._raw.get(name) != value:
            self._unsupported.append(
                f"{self._prefix}{name} = {self._raw.get(name)!r} is not supported; "
                f"only {value!r} is"
            )

    def unsupported(self, text: str) -> None:
        """Remember something that is not supported."""
        self._unsupported.append(text)

    def integer(
        self, name: str, *, default: int | None = None, low: int = 1, high: int | None = None
    ) -> int:
        """An integer in [low, high]."""
        value = self._field(name, default)
        if value is None:
            return low
        if not isinstance(value, int) or isinstance(value, bool):
            return self._bad(name, "an integer", low)
        if value < low or (high is not None and value > high):
            allowed = f"at least {low}" if high is None else f"{low} to {high}"
            return self._bad(name, allowed, low)
        return value

    def optional_integer(self, name: str, *, low: int = 1) -> int | None:
        """As `integer`, or None if absent."""
        return self.integer(name, low=low) if self.has(name) else None

    def integers(self, name: str) -> tuple[int, ...]:
        """One token id or a list of them; empty if absent."""
        value = self._raw.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values):
            return self._bad(name, "a token id or a list of token ids", ())
        return tuple(values)

    def number(self, name: str, *, default: float | None = None, low: float | None = None) -> float:
        """A number of at least `low`; without `low`, greater than 0."""
        stand_in = 1.0 if low is None else low
        value = self._field(name, default)
        if value is None:
            return stand_in
        if not isinstance(value, int | float) or isinstance(value, bool):
            return self._bad(name, "a number", stand_in)
        if not math.isfinite(value):
            return self._bad(name, "a finite number", stand_in)
        if low is None and value <= 0:
            return self._bad(name, "greater than 0", stand_in)
        if low is not None and value < low:
            return self._bad(name, f"at least {low}", stand_in)
        return float(value)

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self._field(name, default)
        return value if isinstance(value, bool) else self._bad(name, "true or false", default)

    def choice(self, name: str, choices: Sequence[str], *, default: str) -> str:
        """One of several strings; another string is not supported."""
        value = self._field(name, default)
        if value in choices:
            return str(value)
        self._unsupported.append(
            f"{self._prefix}{name} = {value!r} is not supported; supported: {', '.join(choices)}"
        )
        return default

    def raise_problems(self) -> None:
        """Raise one error with everything that was found, if anything was.

        Raises:
            UnsupportedModelError: an option that is not supported.
            ConfigFileError: fields that are missing or out of range.
        """
        everything = [*self._unsupported, *self._problems]
        if not everything:
            return
        error = UnsupportedModelError if self._unsupported else ConfigFileError
        raise error(f"{self._source}: " + "; ".join(everything))

    def _field(self, name: str, default: Any) -> Any:
        value = self._raw.get(name)
        if value is None:
            value = default
            if default is None:
                self.problem(f"{self._prefix}{name} is missing")
                self._stand_ins.add(name)
        return value

    def _bad(self, name: str, allowed: str, stand_in: T) -> T:
        self.problem(f"{self._prefix}{name} is {self._raw[name]!r}; allowed: {allowed}")
        self._stand_ins.add(name)
        return stand_in
