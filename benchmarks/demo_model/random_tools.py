"""Tools with random names, parameters and results, and what people ask of them.

The fixed tools of `tool_chats` could be learned by heart; with these, the name of the tool, those
of its parameters, the arguments and the answer can only come from the context.
"""

from __future__ import annotations

import random
from typing import Any

from benchmarks.demo_model import values
from benchmarks.demo_model.tool_task import Arguments, Parameter, ToolTask

_VERBS = values.word_list("verbs")
_NOUNS = values.word_list("nouns")
_TEXT_NAMES = values.word_list("text_parameters")
_NUMBER_NAMES = values.word_list("number_parameters")
_UNITS = ("kg", "km", "miles", "euros", "dollars", "percent", "hours", "points", "degrees")

_ONE = (
    "What is the {noun} of {0}?",
    "What's the {noun} of {0}?",
    "What is the {noun} for {0}?",
    "Give me the {noun} of {0}.",
    "I need the {noun} of {0}.",
    "Tell me the {noun} for {0}.",
    "{noun} of {0}, please.",
    "{noun} {0}",
    "Do you know the {noun} of {0}?",
    "Which {noun} does {0} have?",
    "{Verb} the {noun} of {0}.",
    "{Verb} the {noun} for {0}.",
    "{Verb} a {noun} for {0}.",
    "{Verb} the {noun} {0}.",
    "{Verb} {noun} {0}",
    "Please {verb} the {noun} {0}.",
    "Can you {verb} the {noun} of {0}?",
    "Could you {verb} a {noun} in {0}?",
    "I want to {verb} the {noun} of {0}.",
    "How is the {noun} in {0}?",
    "What about the {noun} in {0}?",
)
_HELDOUT_ONE = (
    "Would you {verb} the {noun} of {0}?",
    "I'd like the {noun} of {0}.",
    "Find out the {noun} of {0} for me.",
)
_NONE = ("{Verb} the {noun}.", "What is the {noun}?", "Please {verb} the {noun}.")
_HELDOUT_NONE = ("Would you {verb} the {noun}?", "I'd like the {noun} now.")
# With several values the first is mentioned as above, the others by these, in the order of the
# schema or by the parameter's name.
_MORE = (", {name} {value}", " with {name} {value}", " and {name} {value}", ", {name}: {value}")
_HELDOUT_MORE = (" where {name} is {value}",)
_BY_NAME = (
    "Use {tool} with {named}.",
    "Call {tool} with {named}.",
    "{tool}: {named}",
    "{Verb} {noun}: {named}",
    "{Verb} the {noun} with {named}.",
    "{Verb} a {noun} where {named}.",
)
_HELDOUT_BY_NAME = ("Run {tool} for {named}.",)
_NAMED = (
    "{name} {value}",
    "{name} {value}",
    "{name}={value}",
    "{name}: {value}",
    "{name} is {value}",
)
_DESCRIPTIONS = (
    "{Verb} the {noun}.",
    "{Verb} the {noun} of a {owner}.",
    "{Verb} a {noun} for a {owner}.",
    "{Verb} the {noun} of the given {owner}.",
    "{Verb}s the {noun}.",
    "Use this to {verb} the {noun}.",
    "A tool to {verb} the {noun} of a {owner}.",
    "",
)


def draw_random_task(rng: random.Random, heldout: bool = False) -> ToolTask:
    """A tool that nobody has seen before, with its questions."""
    verb = values.word(rng, heldout) if rng.random() < 0.1 else rng.choice(_VERBS)
    noun = values.word(rng, heldout) if rng.random() < 0.4 else rng.choice(_NOUNS)
    if rng.random() < 0.15:
        noun = f"{noun}_{rng.choice(_NOUNS)}"
    name = f"{verb}_{noun}"
    style = rng.random()
    if style < 0.12:
        first, *rest = name.split("_")
        name = first + "".join(part.capitalize() for part in rest)
    elif style < 0.18:
        name = noun
    elif style < 0.22:
        name = name.replace("_", "-")
    words = {
        "verb": verb.replace("_", " "),
        "Verb": verb.replace("_", " ").capitalize(),
        "noun": noun.replace("_", " "),
        "owner": rng.choice(_TEXT_NAMES),
        "tool": name,
    }
    parameters = _parameters(rng, heldout)
    return ToolTask(
        name=name,
        description=rng.choice(_DESCRIPTIONS).format(**words),
        parameters=parameters,
        draw=lambda rng, heldout: {p.name: p.draw(rng, heldout) for p in parameters},
        ask=lambda arguments, rng, heldout: _question(words, arguments, rng, heldout),
        result=lambda arguments, rng: _result(noun, rng, heldout),
    )


def _parameters(rng: random.Random, heldout: bool) -> tuple[Parameter, ...]:
    num = rng.choices((0, 1, 2, 3), (1, 10, 6, 3))[0]
    drawn: dict[str, Parameter] = {}
    while len(drawn) < num:
        is_text = rng.random() < 0.65
        if rng.random() < 0.3:
            name = values.word(rng, heldout)
        else:
            name = rng.choice(_TEXT_NAMES if is_text else _NUMBER_NAMES)
        if rng.random() < 0.12:
            name += "_" + rng.choice(_TEXT_NAMES)
        kind = "string" if is_text else rng.choice(("integer", "integer", "number"))
        drawn[name] = Parameter(name, kind, _parameter_description(name, rng))
    return tuple(drawn.values())


def _parameter_description(name: str, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return ""
    return rng.choice(("The {0}.", "The {0} to use.", "{0}", "Name of the {0}, e.g. {1}")).format(
        name.replace("_", " "), values.name(rng)
    )


def _question(
    words: dict[str, str], arguments: Arguments, rng: random.Random, heldout: bool
) -> str:
    if not arguments:
        return rng.choice(_HELDOUT_NONE if heldout else _NONE).format(**words)
    if rng.random() < 0.35:
        form = rng.choice(_NAMED)
        joint = rng.choice((", ", " and "))
        named = joint.join(
            form.format(name=_spoken(name, rng), value=_shown(value, rng))
            for name, value in arguments.items()
        )
        wording = rng.choice(_HELDOUT_BY_NAME if heldout else _BY_NAME)
        return wording.format(named=named, **words)
    (_, first), *more = arguments.items()
    question = rng.choice(_HELDOUT_ONE if heldout else _ONE).format(_shown(first, rng), **words)
    body, mark = question.rstrip(".?"), question[len(question.rstrip(".?")) :]
    for name, value in more:
        form = rng.choice(_HELDOUT_MORE if heldout else _MORE)
        body += form.format(name=_spoken(name, rng), value=_shown(value, rng))
    return body[:1].upper() + body[1:] + mark


def _spoken(name: str, rng: random.Random) -> str:
    return name.replace("_", " ") if rng.random() < 0.7 else name


def _shown(value: Any, rng: random.Random) -> str:
    quoted = isinstance(value, str) and rng.random() < 0.25
    return f'"{value}"' if quoted else str(value)


def draw_random_result(rng: random.Random, heldout: bool = False) -> Any:
    """An output that has nothing to do with any tool."""
    return _result(rng.choice(_NOUNS), rng, heldout)


def _result(noun: str, rng: random.Random, heldout: bool) -> Any:
    """What a tool may return: fields, a text, a number, a list or an error."""
    kind = rng.random()
    if kind < 0.1:
        return values.phrase(rng, heldout)
    if kind < 0.2:
        return _reading(rng, heldout)
    if kind < 0.28:
        return [values.name(rng, heldout) for _ in range(rng.randint(2, 3))]
    if kind < 0.36:
        return {"error": values.phrase(rng, heldout, 3)}
    keys = [noun if rng.random() < 0.5 else rng.choice((*_NOUNS, *_NUMBER_NAMES))]
    keys += [
        values.word(rng, heldout) if rng.random() < 0.3 else rng.choice(_NOUNS)
        for _ in range(rng.choice((0, 0, 1, 1, 2)))
    ]
    return {key: _reading(rng, heldout) for key in keys}


def _reading(rng: random.Random, heldout: bool) -> Any:
    kind = rng.random()
    if kind < 0.35:
        return values.integer(rng, heldout)
    if kind < 0.5:
        return values.decimal(rng, heldout)
    if kind < 0.6:
        return f"{values.integer(rng, heldout)} {rng.choice(_UNITS)}"
    return values.text(rng, heldout)
