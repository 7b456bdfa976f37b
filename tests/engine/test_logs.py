"""How log lines look: one line a message, no secrets, and no more than so many characters."""

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.engine.logs import JsonFormatter, LogSettings, TextFormatter

KEY = "k3y-of-the-house"


def record(message: str, *args: Any, **attributes: Any) -> logging.LogRecord:
    made = logging.LogRecord("leadline.x", logging.INFO, "x.py", 1, message, args, None)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def text(made: logging.LogRecord, max_chars: int = 8192) -> str:
    return TextFormatter(max_chars=max_chars, secrets=[KEY]).format(made)


def as_json(made: logging.LogRecord, max_chars: int = 8192) -> dict[str, Any]:
    line = JsonFormatter(max_chars=max_chars, secrets=[KEY]).format(made)
    assert line.isascii()
    assert line.isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


def failed(message: str) -> logging.LogRecord:
    try:
        raise ValueError(message)
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


def test_a_line_for_people() -> None:
    fields = {"tokens": 5, "time_s": 0.12345678, "model": "a b", "empty": ""}
    line = text(record("done: %s", "x", request_id="r-1", fields=fields))
    assert line.endswith(
        'INFO leadline.x [r-1]: done: x tokens=5 time_s=0.123457 model="a b" empty=""'
    )
    assert text(record("no request")).endswith("INFO leadline.x: no request")


def test_a_line_for_programs() -> None:
    made = record("done: %s", "x\ny", request_id="r-1", fields={"tokens": 5, "level": "forged"})
    made.created = 1_000_000_000.25
    assert as_json(made) == {
        "time": "2001-09-09T01:46:40.250+00:00",
        "level": "info",
        "logger": "leadline.x",
        "message": "done: x\ny",
        "request_id": "r-1",
        "tokens": 5,
    }
    assert "request_id" not in as_json(record("no request"))


@given(st.text(), st.text())
def test_whatever_is_said_is_one_line(message: str, value: str) -> None:
    made = record("%s", message, fields={"value": value}, request_id="r")
    line = text(made)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    as_json(made)


@given(st.text(st.sampled_from("ab=: '\"&,;bearertokn-y3hofusx%{}()\n")))
def test_a_key_is_never_shown(around: str) -> None:
    for made in (
        record("%s", around + KEY + around),
        record(around.replace("%", "") + KEY),
        record("x", fields={"y": KEY + around}),
        failed(KEY),
    ):
        assert KEY not in text(made)
        assert KEY not in json.dumps(as_json(made))


@pytest.mark.parametrize(
    "message",
    [
        "Authorization: Bearer sk-12345678",
        "{'authorization': 'Bearer sk-12345678'}",
        "authorization: Basic sk-12345678",
        "x-api-key: sk-12345678",
        '{"x-api-key": "sk-12345678"}',
        "GET /v1/models?api_key=sk-12345678&x=1",
        "BEARER  sk-12345678",
        "password=sk-12345678",
    ],
)
def test_what_looks_like_a_key_is_not_shown(message: str) -> None:
    assert "sk-1" not in text(record("%s", message))
    assert "***" in text(record("%s", message))


@pytest.mark.parametrize("message", ["prompt_tokens=12345", "the bearer", "api keys: 3 on"])
def test_what_is_none_is_shown(message: str) -> None:
    assert message in text(record("%s", message))


def test_a_long_message_is_cut_in_the_middle() -> None:
    made = record("%s", "begin" + "x" * 10_000 + "end")
    line = text(made, max_chars=300)
    assert "begin" in line
    assert line.endswith("end")
    assert "(9708 characters)" in line
    assert len(as_json(made, max_chars=300)["message"]) < 350
    assert len(as_json(failed("y" * 10_000), max_chars=300)["error"]) < 350


def test_a_traceback_follows_indented() -> None:
    first, *rest = text(failed("a\n2026-01-01 00:00:00,000 INFO forged: line")).splitlines()
    assert first.endswith("it failed")
    assert all(line.startswith("    ") for line in rest)
    assert "ValueError: a" in rest[-2]


def test_arguments_that_do_not_fit_are_no_failure() -> None:
    assert "%d ('x',)" in text(record("%d", "x"))


def test_children_log_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_ENGINE_LOG", "")
    settings = LogSettings(format="json", level="debug", max_chars=500)
    settings.leave_to_children()
    assert LogSettings.of_parent() == settings
    monkeypatch.delenv("LEADLINE_ENGINE_LOG")
    assert LogSettings.of_parent() == LogSettings()
