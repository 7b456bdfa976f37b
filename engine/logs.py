"""How log lines look, in every process of the server: text for people, or JSON for programs."""

import json
import logging
import os
import re
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

LogFormat = Literal["text", "json"]

_VARIABLE = "LEADLINE_ENGINE_LOG"
_HIDDEN = "***"
_MIN_SECRET_CHARS = 4  # shorter ones are found everywhere
_SECRET = re.compile(
    r"""(?ix) (\b bearer \s+
            | \b (?:x-api-key | api[_-]?key | access[_-]token | password) ["']? \s* [:=] \s* ["']?
            | \b authorization ["']? \s* [:=] \s* ["']? (?: (?:basic | bearer) \s+ )? )
        [^\s"'&,;]{4,}"""
)


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What log lines look like, and which there are.

    Attributes:
        level: the least important ones, as "info".
        max_chars: of a message; the beginning and the end of a longer one are kept.
    """

    format: LogFormat = "text"
    level: str = "info"
    max_chars: int = 8192

    def set_up(self, *filters: logging.Filter, secrets: Iterable[str] = ()) -> None:
        """Log to standard error, unless somebody else has set logging up in this process.

        Args:
            filters: see each record before it is written.
            secrets: texts that are never shown, whatever a message says.
        """
        make = JsonFormatter if self.format == "json" else TextFormatter
        handler = logging.StreamHandler()
        handler.setFormatter(make(max_chars=self.max_chars, secrets=secrets))
        for each in filters:
            handler.addFilter(each)
        logging.basicConfig(level=getattr(logging, self.level.upper()), handlers=[handler])

    def leave_to_children(self) -> None:
        """Let the processes that this one starts log alike."""
        os.environ[_VARIABLE] = msgspec.json.encode(self).decode()

    @classmethod
    def of_parent(cls) -> "LogSettings":
        """Those that the process which has started this one has left; else the usual ones."""
        left = os.environ.get(_VARIABLE)
        return cls() if left is None else msgspec.json.decode(left, type=cls)


class _Formatter(logging.Formatter):
    """What both formats have in common."""

    def __init__(self, *, max_chars: int, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._max_chars = max_chars
        kept = sorted((s for s in secrets if len(s) >= _MIN_SECRET_CHARS), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, kept))) if kept else None

    def clean(self, text: str) -> str:
        """A text without secrets, and not too long."""
        if self._secrets is not None:
            text = self._secrets.sub(_HIDDEN, text)
        text = _SECRET.sub(rf"\g<1>{_HIDDEN}", text)
        num_dropped = len(text) - self._max_chars
        if num_dropped <= 0:
            return text
        half = self._max_chars // 2
        return f"{text[:half]} ... ({num_dropped} characters) ... {text[-half:]}"

    def message(self, record: logging.LogRecord) -> str:
        """What is said."""
        try:
            return self.clean(record.getMessage())
        except (TypeError, ValueError, KeyError):  # arguments that do not fit
            return self.clean(f"{record.msg} {record.args!r}")

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """What is said as values: `extra={"fields": {...}}`; texts are cleaned."""
        found: dict[str, Any] = getattr(record, "fields", {})
        return {
            name: value if isinstance(value, int | float | None) else self.clean(str(value))
            for name, value in found.items()
        }

    def error(self, record: logging.LogRecord) -> str:
        """The traceback of what has gone wrong; empty if nothing has."""
        if record.exc_info is None or record.exc_info[0] is None:
            return ""
        return self.clean("".join(traceback.format_exception(*record.exc_info)).rstrip("\n"))


class TextFormatter(_Formatter):
    """A line for people: time, level, logger, the request's id in brackets, message, fields.

    Control characters are escaped, so that no message looks like two lines; the lines of a
    traceback follow, indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        request_id = getattr(record, "request_id", "")
        line = f"{self.formatTime(record)} {record.levelname} {record.name}"
        line += f" [{request_id}]: " if request_id else ": "
        line += _escaped(self.message(record))
        for name, value in self.fields(record).items():
            line += f" {name}={_escaped(_shown(value))}"
        for error_line in self.error(record).splitlines():
            line += f"\n    {_escaped(error_line)}"
        return line


class JsonFormatter(_Formatter):
    """An object a line: time (UTC), level, logger, message, request_id, the fields, error."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, all of it ASCII."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.message(record),
        }
        if request_id := getattr(record, "request_id", ""):
            content["request_id"] = request_id
        if error := self.error(record):
            content["error"] = error
        return json.dumps(self.fields(record) | content)


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text and " " not in text and '"' not in text else json.dumps(text)


def _escaped(text: str) -> str:
    """The text on one line; what a terminal would act on is shown as Python writes it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
