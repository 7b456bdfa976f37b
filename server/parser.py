"""The parser of the command line: one line for a bad flag, with what may have been meant."""

import argparse
import re
from typing import Any, NoReturn

from leadline.server.nearest import did_you_mean

_CHOICES = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
_HELP_COLUMN = 30


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and answers a bad flag with one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but nothing may be left over, so that the right command complains."""
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            self._refuse(rest)
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        if match := _CHOICES.search(message):
            choices = [choice.strip("' ") for choice in match[2].split(",")]
            message += did_you_mean(match[1], choices)
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")

    def _refuse(self, rest: list[str]) -> NoReturn:
        flags = [text.partition("=")[0] for text in rest if text.startswith("-")]
        if not flags:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        known = [text for text in self._option_string_actions if text.startswith("--")]
        self.error(f"unknown flag {flags[0]}{did_you_mean(flags[0], known)}")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and shows a list's `--no-` twin in short."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_HELP_COLUMN)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            flag, twin = action.option_strings[0], action.option_strings[-1]
            is_on = twin == f"--no-{flag.removeprefix('--')}"
            return f"--[no-]{flag.removeprefix('--')}" if is_on else flag
        return super()._format_action_invocation(action)
