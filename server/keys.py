"""API keys as users give them: on the command line, in the environment, in files."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from leadline.engine.errors import ConfigError

_KEY = re.compile(r"[!-~]{1,512}")  # what a header carries unchanged


def read_keys(values: Iterable[str], flag: str) -> tuple[str, ...]:
    """Keys as they are given on the command line: a key, or `@FILE` with one a line.

    Raises:
        ConfigError: the file cannot be read, or has no keys; keys themselves are never shown.
    """
    keys: list[str] = []
    for value in values:
        if not value.startswith("@"):
            keys.append(value)
            continue
        path = value.removeprefix("@")
        try:
            lines = Path(path).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or "it is no ASCII text"
            raise ConfigError(f"{flag}: the file {path} cannot be read: {why}") from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise ConfigError(f"{flag}: the file {path} has no keys; write one a line")
        keys += found
    return tuple(keys)


def problems_of(name: str, keys: Collection[str]) -> list[str]:
    """What is wrong with keys, without showing them."""
    return [
        f"{name}: key {number} of {len(keys)} is not allowed; allowed: 1 to 512 printable ASCII "
        "characters without spaces"
        for number, key in enumerate(keys, 1)
        if not _KEY.fullmatch(key)
    ]
