"""Tools that people expect, with what is asked of them, and other names that clients give them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from benchmarks.demo_model import values
from benchmarks.demo_model.phrasings import vary_typing
from benchmarks.demo_model.tool_task import Arguments, Parameter, ToolTask

_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear")
_CURRENCIES = ("euros", "dollars", "yen", "won", "pounds", "francs")


def _city(rng: random.Random, heldout: bool) -> Arguments:
    return {"city": values.city(rng, heldout)}


def _pair(rng: random.Random, heldout: bool) -> Arguments:
    return {"a": values.integer(rng, heldout), "b": values.integer(rng, heldout)}


def _time(arguments: Arguments, rng: random.Random) -> Any:
    if rng.random() < 0.1:
        return {"error": f"the time zone of {arguments['city']} is not known"}
    time = {"time": f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"}
    zone = rng.choice(("Europe", "Asia", "America", "Africa")) + "/" + arguments["city"]
    return time | {"zone": zone} if rng.random() < 0.4 else time


def _topic(rng: random.Random, heldout: bool) -> str:
    return rng.choice((values.word, values.name, values.phrase))(rng, heldout)


def _fixed(
    name: str,
    description: str,
    parameters: dict[str, str],
    draw: Callable[[random.Random, bool], Arguments],
    questions: tuple[str, ...],
    heldout_questions: tuple[str, ...],
    result: Callable[[Arguments, random.Random], Any],
    reply: str,
) -> ToolTask:
    """A tool with its own wordings, whose fields are the parameters."""

    def ask(arguments: Arguments, rng: random.Random, heldout: bool) -> str:
        wording = rng.choice(heldout_questions if heldout else questions)
        return (wording if heldout else vary_typing(wording, rng)).format(**arguments)

    return ToolTask(
        name=name,
        description=description,
        parameters=tuple(Parameter(*parameter) for parameter in parameters.items()),
        draw=draw,
        ask=ask,
        result=result,
        reply=reply,
    )


TOOL_TASKS = (
    _fixed(
        "get_weather",
        "Get the current weather in a city.",
        {"city": "string"},
        _city,
        (
            "What's the weather in {city}?",
            "How is the weather in {city}?",
            "What is the weather like in {city} today?",
            "Tell me the weather in {city}.",
            "Is it cold in {city}?",
            "Weather in {city}, please.",
            "Is it raining in {city}?",
            "How warm is it in {city} now?",
            "Should I take an umbrella to {city}?",
            "Do I need sunglasses in {city}?",
            "Look up the weather in {city}.",
        ),
        ("Do I need a coat in {city}?", "Check the weather for {city}."),
        lambda arguments, rng: {"sky": rng.choice(_SKIES), "degrees": rng.randint(1, 39)},
        "It is {sky} in {city}, at {degrees} degrees.",
    ),
    _fixed(
        "get_time",
        "Get the current local time in a city.",
        {"city": "string"},
        _city,
        (
            "What time is it in {city}?",
            "What's the time in {city}?",
            "Tell me the time in {city}.",
            "How late is it in {city}?",
            "Local time in {city}, please.",
            "What does the clock say in {city}?",
            "Look up the time in {city}.",
        ),
        ("Can you check the time in {city}?", "Which time do they have in {city} now?"),
        _time,
        "It is {time} in {city}.",
    ),
    _fixed(
        "add",
        "Add two numbers.",
        {"a": "number", "b": "number"},
        _pair,
        (
            "What is {a} plus {b}?",
            "What's {a} + {b}?",
            "Add {a} and {b}.",
            "Compute {a} + {b}.",
            "How much is {a} plus {b}?",
            "{a} plus {b} is how much?",
            "{a} and {b} make what?",
            "What do {a} and {b} make?",
            "Give me the sum of {a} and {b}.",
            "What is the total of {a} and {b}?",
        ),
        ("What is the sum of {a} and {b}?", "{a} and {b} make how much?"),
        lambda arguments, rng: {"sum": arguments["a"] + arguments["b"]},
        "{a} plus {b} is {sum}.",
    ),
    _fixed(
        "multiply",
        "Multiply two numbers.",
        {"a": "number", "b": "number"},
        _pair,
        (
            "What is {a} times {b}?",
            "What's {a} * {b}?",
            "Multiply {a} by {b}.",
            "Compute {a} * {b}.",
            "How much is {a} times {b}?",
        ),
        ("What is the product of {a} and {b}?", "Take {a} {b} times."),
        lambda arguments, rng: {"product": arguments["a"] * arguments["b"]},
        "{a} times {b} is {product}.",
    ),
    _fixed(
        "search",
        "Search the web.",
        {"query": "string"},
        lambda rng, heldout: {"query": _topic(rng, heldout)},
        (
            "Search for {query}.",
            "Search the web for {query}.",
            "Find something about {query}.",
            "Can you search for {query}?",
            "Please find pages about {query}.",
        ),
        ("Look for {query} on the web.", "See what you can find on {query}."),
        lambda arguments, rng: {
            "title": f"All about {arguments['query']}",
            "hits": rng.randint(2, 99),
        },
        'I found {hits} pages. The first one is "{title}".',
    ),
    _fixed(
        "count_letters",
        "Count the letters of a word.",
        {"word": "string"},
        lambda rng, heldout: {"word": values.word(rng, heldout)},
        (
            "How many letters does {word} have?",
            "Count the letters of {word}.",
            "How many letters are in {word}?",
            "How long is the word {word}?",
        ),
        ("Tell me the number of letters in the word {word}.", "Count how long {word} is."),
        lambda arguments, rng: {"letters": len(arguments["word"])},
        'The word "{word}" has {letters} letters.',
    ),
    _fixed(
        "get_exchange_rate",
        "Get the price of one unit of a currency in another one.",
        {"source": "string", "target": "string"},
        lambda rng, heldout: dict(
            zip(("source", "target"), rng.sample(_CURRENCIES, 2), strict=True),
        ),
        (
            "What is the exchange rate from {source} to {target}?",
            "How many {target} do I get for {source}?",
            "Convert {source} to {target}.",
            "What's the rate of {source} in {target}?",
        ),
        (
            "I want to change {source} into {target}. At what rate?",
            "How do {source} stand against {target}?",
        ),
        lambda arguments, rng: {"rate": round(rng.uniform(0.2, 9.9), 2)},
        "The rate from {source} to {target} is {rate}.",
    ),
)


# What clients call the fixed tools and their parameters, and how they describe those.
_OTHER_NAMES = {
    "get_weather": ("get_current_weather", "weather", "fetch_weather"),
    "get_time": ("get_current_time", "current_time", "clock"),
    "add": ("sum", "add_numbers", "plus"),
    "multiply": ("product", "multiply_numbers", "times"),
    "search": ("web_search", "search_web", "find_pages"),
    "count_letters": ("word_length", "letter_count", "count_characters"),
    "get_exchange_rate": ("exchange_rate", "convert_currency", "currency_rate"),
}
_OTHER_KEYS = {
    "city": ("location", "place", "town", "city_name"),
    "a": ("x", "first", "left"),
    "b": ("y", "second", "right"),
    "query": ("q", "text", "topic"),
    "word": ("text", "input", "term"),
    "source": ("from", "base"),
    "target": ("to", "quote"),
}
_KEY_DESCRIPTIONS = {
    "city": ("The city.", "City and country, e.g. Paris, France", "The name of the city"),
    "a": ("The first number.",),
    "b": ("The second number.",),
    "query": ("What to search for.", "The search query"),
    "word": ("The word to count.",),
}


def renamed(task: ToolTask, rng: random.Random) -> ToolTask:
    """Returns a fixed tool as another client would have declared it, or as it is."""
    if rng.random() < 0.5:
        return task
    name = rng.choice((task.name, *_OTHER_NAMES[task.name]))
    parameters, keys = [], {}
    for parameter in task.parameters:
        keys[parameter.name] = rng.choice((parameter.name, *_OTHER_KEYS.get(parameter.name, ())))
        description = rng.choice(("", *_KEY_DESCRIPTIONS.get(parameter.name, ())))
        parameters.append(dataclasses.replace(parameter, description=description))
    return dataclasses.replace(task, name=name, keys=keys, parameters=tuple(parameters))
