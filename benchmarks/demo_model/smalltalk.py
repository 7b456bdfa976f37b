"""Small talk, questions about Leadline and its field, and what to say when not taught."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demo_model.facts import Fact
from benchmarks.demo_model.phrasings import vary_typing

UNKNOWN_ANSWER = "I do not know that. I only know Python's standard library and Leadline."
_INTENTS = Path(__file__).with_name("smalltalk.toml")


@dataclass(frozen=True, slots=True)
class Intent:
    """Something people say, with the one answer to it.

    Attributes:
        name: A short label.
        answer: What the model answers, always the same text.
        train: Training wordings.
        heldout: Wordings that training never sees.
    """

    name: str
    answer: str
    train: tuple[str, ...]
    heldout: tuple[str, ...]

    def say(self, rng: random.Random, *, heldout: bool = False) -> str:
        """Returns one wording."""
        return rng.choice(self.heldout) if heldout else vary_typing(rng.choice(self.train), rng)


@dataclass(frozen=True, slots=True)
class UnknownQuestions:
    """Wordings with fields, and the fields' values, for questions beyond what was taught."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    fields: dict[str, tuple[str, ...]]

    def say(self, rng: random.Random, facts: tuple[Fact, ...], *, heldout: bool = False) -> str:
        """Returns a question about general knowledge or about a name that does not exist."""
        wording = rng.choice(self.heldout) if heldout else vary_typing(rng.choice(self.train), rng)
        values = {field: rng.choice(options) for field, options in self.fields.items()}
        return wording.format(made_up=_made_up_name(rng, facts), **values)


def load_smalltalk() -> tuple[tuple[Intent, ...], UnknownQuestions]:
    """Reads `smalltalk.toml`: the intents, and the questions to which there is no answer.

    The concepts among the intents share their wordings.
    """
    with _INTENTS.open("rb") as file:
        data = tomllib.load(file)
    intents = [
        Intent(name, entry["answer"], tuple(entry["train"]), tuple(entry["heldout"]))
        for name, entry in data["intent"].items()
    ]
    wordings = data["concept_wordings"]
    for name, entry in data["concept"].items():
        train, heldout = (
            tuple(
                wording.format(term=term) for wording in wordings[part] for term in entry["terms"]
            )
            for part in ("train", "heldout")
        )
        intents.append(Intent(name, entry["answer"], train, heldout))
    unknown = data["unknown"]
    fields = {field: tuple(values) for field, values in unknown["fields"].items()}
    return tuple(intents), UnknownQuestions(
        tuple(unknown["train"]), tuple(unknown["heldout"]), fields
    )


_SYLLABLES = "bo da fen gri jup ka lom mip nar plo qua rit sko tuv vex wib yan zor"


def _made_up_name(rng: random.Random, facts: tuple[Fact, ...]) -> str:
    """Returns a name that no module has, alone or behind the name of a real module."""
    word = "".join(rng.choices(_SYLLABLES.split(), k=rng.choice((2, 3))))
    if rng.random() < 0.5:
        return word
    return f"{rng.choice(facts).module.removeprefix('builtins') or 'str'}.{word}"
