"""Where the commands print."""

import sys

from rich.console import Console

_LOG_COLUMNS = 160


def make_console() -> Console:
    """Standard output, plainly: brackets and numbers in the text are just text.

    A pipe or a file has no width of its own; tables there are easier to search unwrapped.
    """
    width = None if sys.stdout.isatty() else _LOG_COLUMNS
    return Console(highlight=False, markup=False, width=width)
