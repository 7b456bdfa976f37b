"""Questions in loose words, so that what is asked about counts and the sentence around it does not.

A model that only sees sixty sentences learns the sentences; people write others.
"""

import random

# The commonest words of English, by and large, and those of talk about programs.
_WORDS = (
    "the be to of and a in that have I it for not on with he as you do at this but his by from "
    "they we say her she or an will my one all would there their what so up out if about who get "
    "which go me when make can like time no just him know take into year your good some could "
    "them see other than then now look only come over think also back after use two how our work "
    "first well even new want because any these give day most us is are was were been has had "
    "does did said made came used goes going please help thanks hello maybe here today sometimes "
    "exactly really again always short long simple words sentence question answer code python "
    "program function class method module library call called reading writing learning "
    "understand meaning mean means role part kind thing things example example summary idea "
    "curious wonder remember remind teach show explain describe tell read found saw met happens "
    "happen should must might why where next across many much little bit quick quickly more less"
)
COMMON_WORDS = tuple(_WORDS.split())
SHARE_LOOSE = 0.5  # of the training questions about facts
_SHARE_SALAD = 0.5  # of the loose ones: words that make no sentence
_MAX_WORDS_BEFORE = 9
_MAX_WORDS_AFTER = 6
_DROP, _SWAP, _INSERT = 0.15, 0.1, 0.15


def loosen(wording: str, rng: random.Random) -> str:
    """A looser wording; `{name}` stays in it, once."""
    if rng.random() < _SHARE_SALAD:
        return _salad(rng)
    return _shuffled(wording, rng)


def _salad(rng: random.Random) -> str:
    before = rng.choices(COMMON_WORDS, k=rng.randint(0, _MAX_WORDS_BEFORE))
    after = rng.choices(COMMON_WORDS, k=rng.randint(0, _MAX_WORDS_AFTER))
    mark = rng.choice(("?", "?", ".", "", "!", ":"))
    if mark == ":":  # "I wonder: NAME?"
        return _sentence([*before, *after]) + ": {name}" + rng.choice(("?", ".", ""))
    if rng.random() < 0.2 and after:  # two sentences
        return f"{_sentence([*before, '{name}'])}. {_sentence(after)}{mark}"
    return _sentence([*before, "{name}", *after]) + mark


def _sentence(words: list[str]) -> str:
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _shuffled(wording: str, rng: random.Random) -> str:
    """A known wording with words left out, put in or swapped."""
    words: list[str] = []
    for word in wording.split():
        if "{name}" in word or rng.random() >= _DROP:
            words.append(word)
        if rng.random() < _INSERT:
            words.append(rng.choice(COMMON_WORDS))
    for i in range(len(words) - 1):
        if rng.random() < _SWAP:
            words[i], words[i + 1] = words[i + 1], words[i]
    return " ".join(words)
