"""Where the commands print."""

import os
import sys

from rich.console import Console

_LOG_COLUMNS = 160


class LastingConsole(Console):
    """Goes on, silently, where nobody reads its pipe any more; rich's own ends the process."""

    def on_broken_pipe(self) -> None:
        """Print no more, and keep what is left from failing at the end of the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console(*, is_lasting: bool = False) -> Console:
    """Standard output, plainly: brackets and numbers in the text are just text.

    A pipe or a file has no width of its own; tables there are easier to search unwrapped.

    Args:
        is_lasting: whoever prints has more to do than that.
    """
    width = None if sys.stdout.isatty() else _LOG_COLUMNS
    console_type = LastingConsole if is_lasting else Console
    return console_type(highlight=False, markup=False, width=width)
