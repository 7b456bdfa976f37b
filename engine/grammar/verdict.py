"""What the server and the process that checks grammars say to each other, beside `Grammar`."""

import msgspec

from leadline.engine.grammar.limits import CheckLimits


class Launch(msgspec.Struct, frozen=True):
    """The first message: which checkpoint, and what a check may take."""

    directory: str
    limits: CheckLimits = CheckLimits()


class Verdict(msgspec.Struct, frozen=True):
    """What is wrong with a grammar, or with the checkpoint's tokenizer.

    Attributes:
        error: a sentence for the user; None if nothing is wrong.
        is_lasting: whether the next check of the same grammar would end alike.
    """

    error: str | None = None
    is_lasting: bool = True
