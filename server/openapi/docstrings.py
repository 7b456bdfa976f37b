"""What a type's docstring says of it and of each of its fields."""

import inspect
import re

_FIELD = re.compile(r"(\w+(?:, \w+)*): (.+)")


def description_of(documented: type) -> str:
    """The docstring's text, without its sections."""
    return _head(inspect.getdoc(documented) or "").strip()


def field_notes(documented: type) -> dict[str, str]:
    """What the sections `Attributes:` of a class and of its bases say of each field."""
    notes: dict[str, str] = {}
    for base in reversed(documented.__mro__):
        notes |= _attributes(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    return notes


def _head(text: str) -> str:
    return re.split(r"\n\s*(?:Attributes|Args|Raises|Returns):\n", f"{text}\n", maxsplit=1)[0]


def _attributes(text: str) -> dict[str, str]:
    _, found, section = f"\n{text}".partition("\nAttributes:\n")
    notes: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines() if found else ():
        if line and not line.startswith(" "):
            break  # the next section
        if (entry := _FIELD.fullmatch(line.strip())) and not line.startswith(" " * 8):
            names = entry[1].split(", ")
            notes |= dict.fromkeys(names, entry[2])
        elif line.strip():
            notes |= {name: f"{notes[name]} {line.strip()}" for name in names}
    return notes
