"""What a check has found."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is; only FAIL keeps the server from starting or from answering."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked at, in a word or two.
        text: what it is like; of a fault also what to do.
    """

    level: Level
    subject: str
    text: str


def ok(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(level=Level.OK, subject=subject, text=text)


def warn(subject: str, text: str) -> Finding:
    """It works, though not as one might wish."""
    return Finding(level=Level.WARN, subject=subject, text=text)


def fail(subject: str, text: str) -> Finding:
    """It does not work."""
    return Finding(level=Level.FAIL, subject=subject, text=text)
