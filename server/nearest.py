"""Did you mean: the name that is most like one that nobody knows."""

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`; None if none is similar."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The words for it, to follow a message; empty if nothing is similar."""
    found = nearest(name, names)
    return f" (did you mean {found}?)" if found else ""
