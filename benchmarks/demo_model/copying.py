"""Chats in which the model repeats, looks up and writes as JSON what it is given.

Short and dense drills of what tool calls need: finding a text in the context and copying it in
pieces, where every piece is a token of the answer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from benchmarks.demo_model import values
from benchmarks.demo_model.chat_format import Chat, Message

_REPEAT = (
    "Repeat {text}",
    "Repeat: {text}",
    "Repeat after me: {text}",
    "Please repeat {text}",
    "Say {text}",
    "Say: {text}",
    "Echo {text}",
    "Write {text}",
    "Copy this: {text}",
    "Can you say {text}",
)
_HELDOUT_REPEAT = ("Please say {text}", "Now repeat {text}")
_AS_JSON = ("{pairs} as JSON", "Write {pairs} as JSON.", "JSON: {pairs}", "Make JSON of {pairs}.")
_HELDOUT_AS_JSON = ("Give me JSON with {pairs}.",)
_PAIR_FORMS = ("{key} is {value}", "{key} {value}", "{key}: {value}", "{key} = {value}")
_LOOK_UP = ("What is {key}?", "What's {key}?", "Tell me {key}.", "And {key}?", "{key}?")
_HELDOUT_LOOK_UP = ("Which value has {key}?", "Remind me: {key}?")

Turn = tuple[str, str]


def key(rng: random.Random, heldout: bool = False) -> str:
    """A name of a field."""
    first = values.word(rng, heldout)
    return f"{first}_{values.word(rng, heldout)}" if rng.random() < 0.25 else first


def value(rng: random.Random, heldout: bool = False) -> str | int | float:
    """A value of a field: a text or a number."""
    kind = rng.random()
    if kind < 0.7:
        return values.text(rng, heldout)
    return values.integer(rng, heldout) if kind < 0.9 else values.decimal(rng, heldout)


def pairs(rng: random.Random, num: int, heldout: bool = False) -> dict[str, str | int | float]:
    """Fields with their values."""
    return {key(rng, heldout): value(rng, heldout) for _ in range(num)}


def _repeat(rng: random.Random, heldout: bool) -> list[Turn]:
    turns = []
    for _ in range(rng.choice((1, 2, 3))):
        items = [str(value(rng, heldout)) for _ in range(rng.choice((1, 2, 3, 6, 12, 24)))]
        text = rng.choice((" ", ", ")).join(items)
        wording = rng.choice(_HELDOUT_REPEAT if heldout else _REPEAT)
        shown = f'"{text}"' if rng.random() < 0.3 else text
        turns.append((wording.format(text=shown) + rng.choice((".", "", "!")), text))
    return turns


def _as_json(rng: random.Random, heldout: bool) -> list[Turn]:
    turns = []
    for _ in range(rng.choice((1, 2, 3))):
        fields = pairs(rng, rng.choice((1, 2, 2, 3)), heldout)
        form = rng.choice(_PAIR_FORMS)
        listed = ", ".join(form.format(key=key, value=value) for key, value in fields.items())
        wording = rng.choice(_HELDOUT_AS_JSON if heldout else _AS_JSON)
        turns.append((wording.format(pairs=listed), json.dumps(fields)))
    return turns


def _look_up(rng: random.Random, heldout: bool) -> list[Turn]:
    fields = pairs(rng, rng.choice((2, 3, 4, 5)), heldout)
    form = rng.choice(_PAIR_FORMS)
    told = (", ", ". ")[rng.random() < 0.3].join(
        form.format(key=key, value=value) for key, value in fields.items()
    )
    if rng.random() < 0.3:
        told = json.dumps(fields)
    wordings = _HELDOUT_LOOK_UP if heldout else _LOOK_UP
    asked = rng.sample(list(fields), rng.randint(1, len(fields)))
    turns = [
        (rng.choice(wordings).format(key=key), f"The {key} is {fields[key]}.") for key in asked
    ]
    first_question, first_answer = turns[0]
    return [(f"{told}. {first_question}", first_answer), *turns[1:]]


_DRILLS: tuple[Callable[[random.Random, bool], list[Turn]], ...] = (_repeat, _as_json, _look_up)


def draw_copy_chat(rng: random.Random, *, heldout: bool = False) -> Chat:
    """One drill, of up to some turns."""
    turns = rng.choice(_DRILLS)(rng, heldout)
    messages: list[Message] = []
    for question, answer in turns:
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    return Chat(tuple(messages))
