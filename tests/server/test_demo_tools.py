"""The terminal's demo tools: real times and sums, errors for what cannot be answered."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from leadline.server.demo_tools import TOOLS, answer_call


def result(name: str, **arguments: Any) -> Any:
    return json.loads(answer_call(name, json.dumps(arguments)))


def test_weather_is_the_same_as_on_the_page() -> None:
    assert result("get_weather", city="Lisbon") == {"sky": "sunny", "degrees": 22}


@pytest.mark.parametrize("city", ["New York", "new york", "New York, USA"])
def test_time(city: str) -> None:
    answer = result("get_time", city=city)
    assert answer["zone"] == "America/New_York"
    assert re.fullmatch(r"\d\d:\d\d", answer["time"])


def test_sum() -> None:
    assert result("add", a=2, b=3.5) == {"sum": 5.5}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("get_time", '{"city": "Atlantis"}', "time zone of Atlantis is not known"),
        ("get_weather", '{"town": "Rome"}', "not those that it takes"),
        ("get_weather", "[1]", "not those that it takes"),
        ("add", '{"a": "x", "b": 1}', "not those that it takes"),
        ("add", '{"a": 1', "not what the tool takes"),
        ("stop", "{}", "there is no tool stop; there are get_weather"),
    ],
)
def test_errors(name: str, arguments: str, words: str) -> None:
    assert words in json.loads(answer_call(name, arguments))["error"]


def test_the_page_offers_the_same_tools() -> None:
    page = (files("leadline.server") / "page" / "tools.js").read_text()
    declared = re.findall(r'tool\("(\w+)", "(.*)", \{ (.*) \}\),', page)
    assert declared == [
        (
            tool["function"]["name"],
            tool["function"]["description"],
            ", ".join(
                f'{key}: "{schema["type"]}"'
                for key, schema in tool["function"]["parameters"]["properties"].items()
            ),
        )
        for tool in TOOLS
    ]
