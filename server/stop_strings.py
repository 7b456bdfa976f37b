"""Finds stop strings in a text that arrives in pieces."""

from collections.abc import Iterable, Sequence


def _failure_table(pattern: str) -> list[int]:
    """For each prefix of the pattern, the length of its longest proper suffix that begins it.

    Source: Knuth, Morris, Pratt 1977.
    """
    table = [0] * len(pattern)
    length = 0
    for end in range(1, len(pattern)):
        while length and pattern[end] != pattern[length]:
            length = table[length - 1]
        if pattern[end] == pattern[length]:
            length += 1
        table[end] = length
    return table


def touches(piece: str, stops: Iterable[str]) -> bool:
    """Whether a piece holds a stop string, or ends with the beginning of one.

    One that does not changes nothing for a matcher that is idle, and is passed on whole.
    """
    for stop in stops:
        begin = piece.find(stop[0])
        while begin >= 0:
            if stop.startswith(piece[begin : begin + len(stop)]):
                return True
            begin = piece.find(stop[0], begin + 1)
    return False


class StopStringMatcher:
    """Passes a text on, up to the first stop string, whatever the pieces it arrives in.

    The first stop string is the one that is complete first; of several that end together, the
    longest. Text that may be the beginning of a stop string is held back until that is decided,
    unless the stop string is to be passed on as well.

    Attributes:
        matched: the stop string that was found, or None.
    """

    def __init__(self, stops: Sequence[str], *, is_included: bool = False) -> None:
        """Look for stop strings, none of them empty; `is_included`: pass on the one found too."""
        self.matched: str | None = None
        self._is_included = is_included
        self._stops = sorted(stops, key=len, reverse=True)
        self._tables = [_failure_table(stop) for stop in self._stops]
        self._lengths = [0] * len(stops)  # characters of each stop string that the text ends with
        self._held = ""

    @property
    def is_idle(self) -> bool:
        """Whether the text ends with the beginning of no stop string."""
        return not any(self._lengths)

    def push(self, piece: str) -> str:
        """The text that can be passed on now.

        Nothing may be pushed after a match.
        """
        if not self._stops:
            return piece
        assert self.matched is None, "the text has ended"
        text = self._held + piece
        for end in range(len(self._held), len(text)):
            self._advance(text[end])
            for stop, length in zip(self._stops, self._lengths, strict=True):
                if length == len(stop):
                    self.matched = stop
                    self._held = ""
                    return text[: end + 1 if self._is_included else end + 1 - length]
        if self._is_included:
            return text
        num_safe = len(text) - max(self._lengths)
        self._held = text[num_safe:]
        return text[:num_safe]

    def flush(self) -> str:
        """The text held back, once no more will come."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> None:
        for index, (stop, table) in enumerate(zip(self._stops, self._tables, strict=True)):
            length = self._lengths[index]
            while length and stop[length] != character:
                length = table[length - 1]
            self._lengths[index] = length + (stop[length] == character)
