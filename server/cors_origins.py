"""Origins of web pages, as `--cors-origin` takes them."""

import re
from collections.abc import Iterable

ANY = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?")


def problems_of_origins(origins: Iterable[str]) -> list[str]:
    """What is wrong with them; browsers compare origins letter by letter."""
    return [
        f"cors_origin is {origin[:80]!r}; allowed: {ANY}, or scheme://host or scheme://host:port "
        "in small letters, without a path"
        for origin in origins
        if origin != ANY and not _ORIGIN.fullmatch(origin)
    ]
