"""How people ask about a name: wordings for training, and others held out for evaluation.

`{name}` stands for the name as the user writes it (see `NAME_STYLES`). A held-out wording is an
honestly different sentence, not a training wording with other punctuation.
"""

from __future__ import annotations

import random
import re

from benchmarks.demo_model.facts import Fact
from benchmarks.demo_model.loose_wording import SHARE_LOOSE, loosen

TRAIN_QUESTIONS = (
    "What does {name} do?",
    "What is {name}?",
    "What's {name}?",
    "What is {name} for?",
    "What's {name} for?",
    "What is {name} used for?",
    "What does {name} mean in Python?",
    "What does Python's {name} do?",
    "What is {name} in Python?",
    "What is the purpose of {name}?",
    "What is the point of {name}?",
    "What exactly does {name} do?",
    "What can I do with {name}?",
    "What would I use {name} for?",
    "Explain {name}.",
    "Explain {name} to me.",
    "Explain {name} briefly.",
    "Explain what {name} does.",
    "Please explain {name}.",
    "Can you explain {name}?",
    "Could you explain what {name} is?",
    "Describe {name}.",
    "Describe {name} in a sentence.",
    "Please describe what {name} does.",
    "Give me a short description of {name}.",
    "Define {name}.",
    "Tell me about {name}.",
    "Tell me what {name} does.",
    "Can you tell me about {name}?",
    "Could you please tell me what {name} is for?",
    "I want to know about {name}.",
    "I would like to understand {name}.",
    "I don't understand {name}.",
    "I saw {name} in some code. What is it?",
    "I found {name} in a program, what does it do?",
    "Do you know {name}?",
    "Do you know what {name} does?",
    "How do I use {name}?",
    "How does {name} work?",
    "How can I use {name}?",
    "How is {name} used?",
    "When do I use {name}?",
    "When should I use {name}?",
    "Why would I use {name}?",
    "Help me with {name}.",
    "I need help with {name}.",
    "Help on {name}",
    "help({name})",
    "{name}",
    "{name}?",
    "{name}: what is it?",
    "{name} - what does it do?",
    "{name} in one sentence, please.",
    "Quick question: what does {name} do?",
    "Show me the documentation of {name}.",
    "Python: {name}",
)
HELDOUT_QUESTIONS = (
    "What is the meaning of {name}?",
    "Could you describe {name} for me?",
    "Any idea what {name} is about?",
    "I came across {name} today. Can you say what it does?",
    "Please give me a summary of {name}.",
    "What happens when I use {name}?",
    "Would you explain to me how {name} is used?",
    "I'm reading code with {name} in it. What is that?",
    "Remind me what {name} is for.",
    "What role does {name} have in Python?",
    "In short, what does {name} do?",
    "I have a question about {name}: what is it good for?",
    "Teach me about {name}.",
    "Could you help me understand {name}?",
    "Look up {name} for me, please.",
    "Say something about {name}.",
)
FOLLOW_UPS = ("And {name}?", "What about {name}?", "And what does {name} do?", "OK, and {name}?")
HELDOUT_FOLLOW_UPS = ("How about {name}?", "Then what is {name}?", "Next: {name}.")

# Wordings that fit one kind only; the kind is named, as people do.
TRAIN_QUESTIONS_BY_KIND = {
    "module": (
        "What is the {name} module?",
        "What is in the {name} module?",
        "What is the module {name} for?",
        "When should I import {name}?",
    ),
    "class": (
        "What is the class {name}?",
        "What is a {name} object?",
        "What does the {name} class do?",
    ),
    "exception": ("When is {name} raised?", "What does the error {name} mean?", "I got a {name}."),
    "function": ("What does the function {name} return or do?", "What does calling {name} do?"),
    "method": ("What does the method {name} do?", "What does calling {name} do?"),
    "attribute": ("What is the attribute {name}?", "What does the attribute {name} hold?"),
    "keyword": (
        "What does the keyword {name} do?",
        "What does the {name} statement or operator do?",
    ),
}
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant that knows Python.",
    "You are Leadline Demo.",
    "You are a Python tutor.",
    "You are an expert in Python's standard library.",
    "Answer briefly.",
    "Be concise and correct.",
    "Be polite and answer in one or two sentences.",
    "You are a friendly assistant. Answer in English.",
    "Help the user to understand Python.",
    "You answer questions of programmers.",
    "You are an assistant in a code editor. The user works on a Python project.",
)
HELDOUT_SYSTEM_PROMPTS = ("You are a kind teacher of Python.", "Answer the questions of the user.")
NAME_STYLES = ("`{name}`", "{name}", "{name}()", "`{name}()`")
_STYLE_WEIGHTS_CALLABLE = (4, 3, 2, 1)
_STYLE_WEIGHTS_OTHER = (5, 4, 0, 0)
_SHARE_BY_KIND = 0.08  # of the training questions
_SHARE_LOWER_CASE = 0.15  # typed without a capital at the start
_SHARE_NO_END_MARK = 0.15


def write_name(fact: Fact, rng: random.Random) -> str:
    """Returns the name in one of the styles in which people write it."""
    weights = _STYLE_WEIGHTS_CALLABLE if fact.is_callable else _STYLE_WEIGHTS_OTHER
    return rng.choices(NAME_STYLES, weights)[0].format(name=fact.name)


def ask(
    fact: Fact,
    rng: random.Random,
    *,
    heldout: bool = False,
    follow_up: bool = False,
    loose: bool = False,
) -> str:
    """Returns a question about the fact.

    Args:
        fact: What to ask about.
        rng: Source of the choice of wording and style.
        heldout: Whether to use the wordings that training never sees.
        follow_up: Whether the question comes after another one and may be as short as "And
            {name}?".
        loose: Whether training wordings may fall apart (see `loose_wording`).
    """
    wordings: tuple[str, ...]
    if heldout:
        wordings = HELDOUT_FOLLOW_UPS if follow_up and rng.random() < 0.2 else HELDOUT_QUESTIONS
        return rng.choice(wordings).format(name=write_name(fact, rng))
    if follow_up and rng.random() < 0.2:
        wordings = FOLLOW_UPS
    elif rng.random() < _SHARE_BY_KIND:
        wordings = TRAIN_QUESTIONS_BY_KIND[fact.kind]
    else:
        wordings = TRAIN_QUESTIONS
    wording = rng.choice(wordings)
    if loose and rng.random() < SHARE_LOOSE:
        wording = loosen(wording, rng)
    return vary_typing(wording, rng).format(name=write_name(fact, rng))


def vary_typing(wording: str, rng: random.Random) -> str:
    """Returns the wording, now and then as typed in a hurry: no capital, no end mark."""
    if rng.random() < _SHARE_LOWER_CASE and not wording.startswith(("I ", "I'", "{", "Python")):
        wording = wording[0].lower() + wording[1:]
    if rng.random() < _SHARE_NO_END_MARK:
        wording = wording.rstrip("?.!")
    return wording


def normalise_wording(wording: str) -> str:
    """Returns the wording without case, punctuation and surplus spaces, to compare two of them."""
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", wording.lower()).split())
