"""Chats in which the assistant calls a tool, and answers from what the tool says.

Arguments are drawn from value sets that are split into training and held-out ones: the model must
learn to copy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.demo_model.chat_format import Chat, Message, Tool
from benchmarks.demo_model.phrasings import vary_typing

_CITIES = """
    Amsterdam Athens Auckland Bangkok Barcelona Beijing Berlin Bogota Boston Brussels Budapest Busan
    Cairo Chicago Copenhagen Dakar Delhi Denver Dublin Florence Geneva Hamburg Hanoi Helsinki
    Istanbul Jakarta Johannesburg Kyoto Lagos Lima Lisbon London Madrid Manila Melbourne Miami Milan
    Montreal Moscow Mumbai Munich Nairobi Naples Osaka Oslo Ottawa Paris Prague Quito Riga Rome
    Santiago Seattle Seoul Shanghai Singapore Sofia Stockholm Sydney Taipei Tallinn Tokyo Toronto
    Vienna Warsaw Zurich
"""
_SUBJECTS = """
    apples bread bridges cameras castles chess clouds coffee comets dolphins engines falcons forests
    gardens glaciers guitars honey islands kites lemons lighthouses maps mountains museums oceans
    olives owls paper penguins pianos planets rivers robots ships silk stars tea tigers trains
    tulips turtles violins volcanoes whales windmills wolves
"""
_WORDS = """
    amber basket candle desert eagle feather garden hammer island jacket kettle ladder marble needle
    orange pepper quartz rabbit saddle tunnel umbrella velvet winter yellow zipper anchor button
    copper dragon fabric goblet harbor
"""
_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear")
_CURRENCIES = ("euros", "dollars", "yen", "won", "pounds", "francs")
_HELDOUT_EVERY = 6  # one value in six is never seen in training


def _values(items: str, heldout: bool) -> list[str]:
    return [
        item for index, item in enumerate(items.split()) if (index % _HELDOUT_EVERY == 0) == heldout
    ]


def _number(rng: random.Random, heldout: bool) -> int:
    """Returns a number from 1 to 999; those divisible by seven are held out."""
    while True:
        number = rng.randint(1, 999)
        if (number % 7 == 0) == heldout:
            return number


Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ToolTask:
    """One tool with what people ask of it.

    Attributes:
        name: The tool's name.
        description: What the model is told about it.
        parameters: Parameter name -> JSON type.
        draw: Makes arguments from a generator and whether held-out values are wanted.
        questions: Training wordings with the parameters as fields.
        heldout_questions: Other wordings.
        result: Makes the tool's output for the arguments.
        reply: The answer, with the parameters and the result's keys as fields.
    """

    name: str
    description: str
    parameters: dict[str, str]
    draw: Callable[[random.Random, bool], Arguments]
    questions: tuple[str, ...]
    heldout_questions: tuple[str, ...]
    result: Callable[[Arguments, random.Random], dict[str, Any]]
    reply: str

    def schema(self, rng: random.Random) -> Tool:
        """Returns the tool as the OpenAI API has it; the order of keys varies, as with clients."""
        properties = {name: {"type": kind} for name, kind in self.parameters.items()}
        parts: list[tuple[str, Any]] = [
            ("type", "object"),
            ("properties", properties),
            ("required", list(self.parameters)),
        ]
        if rng.random() < 0.5:
            parts.sort()
        function = {"name": self.name, "description": self.description, "parameters": dict(parts)}
        return {"type": "function", "function": function}


def _city(rng: random.Random, heldout: bool) -> Arguments:
    return {"city": rng.choice(_values(_CITIES, heldout))}


def _pair(rng: random.Random, heldout: bool) -> Arguments:
    return {"a": _number(rng, heldout), "b": _number(rng, heldout)}


TOOL_TASKS = (
    ToolTask(
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
        ),
        ("Do I need a coat in {city}?", "Check the weather for {city}."),
        lambda arguments, rng: {"sky": rng.choice(_SKIES), "degrees": rng.randint(1, 39)},
        "It is {sky} in {city}, at {degrees} degrees.",
    ),
    ToolTask(
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
        ),
        ("Can you check the time in {city}?", "Which time do they have in {city} now?"),
        lambda arguments, rng: {"time": f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"},
        "It is {time} in {city}.",
    ),
    ToolTask(
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
        ),
        ("What is the sum of {a} and {b}?", "{a} and {b} make how much?"),
        lambda arguments, rng: {"sum": arguments["a"] + arguments["b"]},
        "{a} plus {b} is {sum}.",
    ),
    ToolTask(
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
    ToolTask(
        "search",
        "Search the web.",
        {"query": "string"},
        lambda rng, heldout: {"query": rng.choice(_values(_SUBJECTS, heldout))},
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
    ToolTask(
        "count_letters",
        "Count the letters of a word.",
        {"word": "string"},
        lambda rng, heldout: {"word": rng.choice(_values(_WORDS, heldout))},
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
    ToolTask(
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


@dataclass(frozen=True, slots=True)
class ToolExchange:
    """The four messages of one use of a tool, with the tools that were offered."""

    tools: tuple[Tool, ...]
    question: Message
    call: Message
    output: Message
    answer: Message

    def chat(self, num_messages: int = 4) -> Chat:
        """Returns the chat up to the given number of messages."""
        messages = (self.question, self.call, self.output, self.answer)
        return Chat(messages[:num_messages], tools=self.tools)


def draw_tool_exchange(rng: random.Random, *, heldout: bool = False) -> ToolExchange:
    """Returns a random use of one of the tools, offered alone or beside one or two others."""
    offered = rng.sample(TOOL_TASKS, rng.choice((1, 1, 2, 2, 3)))
    task = rng.choice(offered)
    arguments = task.draw(rng, heldout)
    wording = rng.choice(task.heldout_questions if heldout else task.questions)
    question = (wording if heldout else vary_typing(wording, rng)).format(**arguments)
    result = task.result(arguments, rng)
    function = {"name": task.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"id": f"call_{rng.randrange(16**8):08x}", "type": "function", "function": function}
    return ToolExchange(
        tools=tuple(task.schema(rng) for task in offered),
        question={"role": "user", "content": question},
        call={"role": "assistant", "content": None, "tool_calls": [call]},
        output={
            "role": "tool",
            "tool_call_id": call["id"],
            "content": json.dumps(result, ensure_ascii=False),
        },
        answer={"role": "assistant", "content": task.reply.format(**arguments, **result)},
    )
