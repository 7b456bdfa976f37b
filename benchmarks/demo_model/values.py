"""Random values for the model to copy: words, names, numbers, texts, a sixth of them held out.

Whether a value is held out is decided by a checksum of its words, so that no list must be split by
hand and a word is on the same side wherever it is drawn.
"""

from __future__ import annotations

import random
import tomllib
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.demo_model.facts import collect_facts
from benchmarks.demo_model.loose_wording import COMMON_WORDS

_LISTS = Path(__file__).with_name("words.toml")
_HELDOUT_EVERY = 6  # one word in six is never seen in training


def word_list(name: str) -> list[str]:
    """One list of `words.toml`."""
    words: str = tomllib.loads(_LISTS.read_text())[name]
    return words.split()


_ONSETS = word_list("onsets")
_VOWELS = word_list("vowels")
_CODAS = word_list("codas")
_ENDINGS = word_list("endings")
FIRST_NAMES = word_list("first_names")
CITIES = word_list("cities")


def is_heldout(text: str) -> bool:
    """Whether training must not contain this word or number."""
    return zlib.crc32(text.lower().encode()) % _HELDOUT_EVERY == 0


def _until(draw: Callable[[], str], heldout: bool) -> str:
    """Draws until the value is on the wanted side."""
    while True:
        text = draw()
        if is_heldout(text) == heldout:
            return text


@cache
def known_words() -> tuple[str, ...]:
    """English words that the facts use, and the commonest ones."""
    words = set(COMMON_WORDS)
    for fact in collect_facts():
        words.update(word for word in fact.answer.split() if word.isalpha() and len(word) > 2)
    return tuple(sorted({word.lower() for word in words}))


def made_up_word(rng: random.Random) -> str:
    """A word that could be one, such as `brintsol`."""
    parts = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        parts.append(rng.choice(_ONSETS) + rng.choice(_VOWELS))
        if rng.random() < 0.4:
            parts.append(rng.choice(_CODAS))
    if rng.random() < 0.3:
        parts.append(rng.choice(_ENDINGS))
    return "".join(parts)


def word(rng: random.Random, heldout: bool = False) -> str:
    """A word in small letters, made up or English."""
    made_up = rng.random() < 0.5
    return _until(lambda: made_up_word(rng) if made_up else rng.choice(known_words()), heldout)


def name(rng: random.Random, heldout: bool = False) -> str:
    """A word with a capital, as names of people, places and firms have."""
    kind = rng.random()
    if kind < 0.55:
        return _until(lambda: made_up_word(rng), heldout).capitalize()
    return _until(lambda: rng.choice(CITIES if kind < 0.85 else FIRST_NAMES), heldout)


def city(rng: random.Random, heldout: bool = False) -> str:
    """A city: mostly real, some made up, some of two words."""
    kind = rng.random()
    if kind < 0.6:
        return _until(lambda: rng.choice(CITIES), heldout)
    made_up = _until(lambda: made_up_word(rng), heldout).capitalize()
    if kind > 0.92:
        return f"{rng.choice(('New', 'San', 'Port', 'Los', 'Saint', 'El'))} {made_up}"
    return made_up


def phrase(rng: random.Random, heldout: bool = False, num_words: int = 0) -> str:
    """Some words, in small letters."""
    return " ".join(word(rng, heldout) for _ in range(num_words or rng.randint(2, 5)))


def integer(rng: random.Random, heldout: bool = False) -> int:
    """A number from 0 up, small ones more often; where held out, of two digits or more."""
    while True:
        number = rng.randrange(10 ** rng.choice((1, 2, 2, 3, 3, 4, 5)))
        if is_heldout(str(number)) == heldout and not (heldout and number < 10):
            return number


def decimal(rng: random.Random, heldout: bool = False) -> float:
    """A number with one or two decimals."""
    while True:
        number = round(rng.uniform(0, 10 ** rng.choice((1, 2, 3))), rng.choice((1, 2)))
        if is_heldout(str(number)) == heldout and not number.is_integer():
            return number


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1950, 2049)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _time(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"


def _code(rng: random.Random) -> str:
    letters = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(1, 4)))
    return letters + rng.choice(("", "", f"-{rng.randrange(1000)}", str(rng.randrange(10000))))


def _file(rng: random.Random) -> str:
    ending = rng.choice(("txt", "py", "csv", "json", "md", "log", "pdf", "png"))
    return f"{made_up_word(rng)}{rng.choice(('', '_', '-'))}{rng.choice(known_words())}.{ending}"


def _address(rng: random.Random) -> str:
    first = rng.choice((*FIRST_NAMES, *known_words()[:200])).lower()
    return f"{first}@{rng.choice(('example', made_up_word(rng)))}.{rng.choice(('com', 'org'))}"


_CODE_MAKERS = (_date, _time, _code, _code, _file, _address)


def code(rng: random.Random, heldout: bool = False) -> str:
    """A date, time, code, file name or address."""
    make = rng.choice(_CODE_MAKERS)
    return _until(lambda: make(rng), heldout)


def text(rng: random.Random, heldout: bool = False) -> str:
    """A value of any kind that is written as a string."""
    make = rng.choices((word, name, phrase, code, _full_name), (4, 5, 3, 3, 1))[0]
    return make(rng, heldout)


def _full_name(rng: random.Random, heldout: bool) -> str:
    return f"{name(rng, heldout)} {name(rng, heldout)}"
