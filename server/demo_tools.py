"""Demo tools of `leadline chat`: those of the chat page, answered here; the weather is made up."""

import json
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any


def _tool(name: str, description: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(kinds)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


TOOLS = (
    _tool("get_weather", "Get the current weather in a city.", {"city": "string"}),
    _tool("get_time", "Get the current local time in a city.", {"city": "string"}),
    _tool("add", "Add two numbers.", {"a": "number", "b": "number"}),
)


def answer_call(name: str, arguments: str) -> str:
    """What a call returns, as JSON; a call that cannot be answered returns an `error`.

    Args:
        name: The tool's name.
        arguments: JSON, as the model wrote it.
    """
    return json.dumps(_result(name, arguments), ensure_ascii=False)


def _result(name: str, arguments: str) -> dict[str, Any]:
    if name not in _ANSWERS:
        return {"error": f"there is no tool {name}; there are {', '.join(_ANSWERS)}"}
    try:
        return _ANSWERS[name](**json.loads(arguments))
    except ValueError as error:
        return {"error": f"the arguments are not what the tool takes: {error}"}
    except TypeError:
        return {"error": f"the arguments of {name} are not those that it takes"}


def _weather(city: str) -> dict[str, Any]:
    length = len(str(city))
    return {"sky": ("sunny", "cloudy", "rainy")[length % 3], "degrees": 5 + length * 7 % 25}


def _time(city: str) -> dict[str, Any]:
    """The time of one of the some hundred cities that a time zone is named after."""
    wanted = str(city).split(",")[0].strip().lower().replace(" ", "_")
    for zone in sorted(zoneinfo.available_timezones()):
        if zone.rpartition("/")[2].lower() == wanted:
            now = datetime.now(zoneinfo.ZoneInfo(zone))
            return {"time": f"{now:%H:%M}", "zone": zone}
    return {"error": f"the time zone of {city} is not known"}


def _add(a: float, b: float) -> dict[str, Any]:
    return {"sum": a + b}


_ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {
    "get_weather": _weather,
    "get_time": _time,
    "add": _add,
}
