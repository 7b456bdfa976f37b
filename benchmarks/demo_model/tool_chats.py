"""Chats in which the assistant calls tools, and answers from what the tools say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.demo_model import values
from benchmarks.demo_model.chat_format import Chat, Message, Tool
from benchmarks.demo_model.phrasings import vary_typing
from benchmarks.demo_model.random_tools import draw_random_result, draw_random_task
from benchmarks.demo_model.tool_task import Arguments, Parameter, ToolTask, output_text

_SKIES = ("sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear")
_CURRENCIES = ("euros", "dollars", "yen", "won", "pounds", "francs")
SHARE_RANDOM_TOOL = 0.6  # tools made up for one chat, against the fixed ones
SHARE_FOREIGN_RESULT = 0.25  # a fixed tool returns something in another form


def _city(rng: random.Random, heldout: bool) -> Arguments:
    return {"city": values.city(rng, heldout)}


def _pair(rng: random.Random, heldout: bool) -> Arguments:
    return {"a": values.integer(rng, heldout), "b": values.integer(rng, heldout)}


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
        ),
        ("Can you check the time in {city}?", "Which time do they have in {city} now?"),
        lambda arguments, rng: {"time": f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"},
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


@dataclass(frozen=True, slots=True)
class Use:
    """One use of a tool: the question with the call, the output and the answer."""

    question: str
    call: Message
    output: Message
    answer: str

    def messages(self) -> tuple[Message, ...]:
        """The four messages."""
        return (
            {"role": "user", "content": self.question},
            self.call,
            self.output,
            {"role": "assistant", "content": self.answer},
        )


def draw_tools(rng: random.Random, *, heldout: bool = False) -> list[ToolTask]:
    """Some tools to offer together, no two of the same name."""
    num = rng.choices((1, 2, 3), (5, 3, 1))[0]
    drawn: dict[str, ToolTask] = {}
    while len(drawn) < num:
        is_random = rng.random() < SHARE_RANDOM_TOOL
        task = draw_random_task(rng, heldout) if is_random else rng.choice(TOOL_TASKS)
        drawn[task.name] = task
    return list(drawn.values())


def draw_use(task: ToolTask, rng: random.Random, *, heldout: bool = False) -> Use:
    """A random use of a tool."""
    arguments = task.draw(rng, heldout)
    foreign = rng.random() < SHARE_FOREIGN_RESULT
    result = draw_random_result(rng, heldout) if foreign else task.result(arguments, rng)
    function = {"name": task.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"id": f"call_{rng.randrange(16**8):08x}", "type": "function", "function": function}
    return Use(
        question=task.ask(arguments, rng, heldout),
        call={"role": "assistant", "content": None, "tool_calls": [call]},
        output={"role": "tool", "tool_call_id": call["id"], "content": output_text(result)},
        answer=task.answer(arguments, result),
    )


def schemas(tasks: list[ToolTask], rng: random.Random) -> tuple[Tool, ...]:
    """The tools as the OpenAI API has them."""
    return tuple(task.schema(rng) for task in tasks)


def draw_tool_chat(rng: random.Random, *, heldout: bool = False) -> Chat:
    """One to four uses of the tools that are offered, two of them at once now and then."""
    tasks = draw_tools(rng, heldout=heldout)
    messages: list[Message] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.12:
            messages += _two_at_once(rng.choice(tasks), rng, heldout)
        else:
            messages += draw_use(rng.choice(tasks), rng, heldout=heldout).messages()
    return Chat(tuple(messages), tools=schemas(tasks, rng))


def _two_at_once(task: ToolTask, rng: random.Random, heldout: bool) -> list[Message]:
    """Two questions in one message: two calls in one answer, or one after the other."""
    first, second = (draw_use(task, rng, heldout=heldout) for _ in range(2))
    later = rng.random() < 0.4
    joint = " Then: " if later else " And: "
    question: Message = {"role": "user", "content": first.question + joint + second.question}
    answer: Message = {"role": "assistant", "content": f"{first.answer} {second.answer}"}
    if later:
        return [question, first.call, first.output, second.call, second.output, answer]
    calls = [*first.call["tool_calls"], *second.call["tool_calls"]]
    both: Message = {"role": "assistant", "content": None, "tool_calls": calls}
    return [question, both, first.output, second.output, answer]
