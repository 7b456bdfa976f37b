"""The command `leadline`: serve, chat, bench, kernels.

What a command needs is imported when it runs, so that help comes at once.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.bench.command import add_bench
from leadline.server.config import DEFAULT_URL, KEY_FIELDS, ServerConfig
from leadline.server.flags import Alias, add_flags, config_from, flag_of, integer
from leadline.server.keys import read_keys
from leadline.server.speculative_config import num_speculative_tokens

KEY_VARIABLE = "LEADLINE_API_KEY"
_NUMBERS = (
    "Numbers may end in k, m or g (thousands, millions, billions) or in K, M or G (powers of 1024)."
)
_SPECULATIVE_CONFIG = Alias(
    "--speculative-config",
    num_speculative_tokens,
    "JSON",
    'the same as vLLM has it: {"method": "mtp", "num_speculative_tokens": N}',
)


class _Parser(argparse.ArgumentParser):
    """Answers a bad flag with one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


class _Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        from leadline.server.version import version

        print(f"leadline {version()}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="leadline",
        description="An inference server for the DeepSeek-V3 model family.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_chat(commands)
    add_bench(commands)
    _add_kernels(commands)
    return parser


def _add_serve(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "serve",
        help="serve a model over HTTP",
        description="Serve a model over an OpenAI-compatible HTTP interface.",
        epilog=_NUMBERS,
        allow_abbrev=False,
    )
    model = EngineConfig.__dataclass_fields__["model"]
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=model.default,
        help=f"{model.metadata['help']} (default: {model.default})",
    )
    aliases = {"speculative_tokens": _SPECULATIVE_CONFIG}
    add_flags(parser, EngineConfig, title="engine", skip=("model",), aliases=aliases)
    add_flags(parser, ServerConfig, title="server")
    parser.set_defaults(command=_serve)


def _add_chat(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "chat",
        help="talk to a running server from the terminal",
        description="Talk to a running server; reads one message a line if input is piped.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help=f"address of the server (default: {DEFAULT_URL})"
    )
    parser.add_argument("--model", metavar="NAME", help="model (default: the server's first)")
    parser.add_argument("--system", metavar="TEXT", help="system message (default: none)")
    parser.add_argument(
        "--max-tokens", type=integer, metavar="N", help="most tokens of an answer (default: all)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="X", help="0 for the likeliest (default: the model's)"
    )
    parser.set_defaults(command=_chat)


def _add_kernels(commands: "argparse._SubParsersAction[_Parser]") -> None:
    parser = commands.add_parser(
        "kernels",
        help="show which kernels are used, and why",
        description="Show the implementation of each operation, and why others were rejected.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="what to choose for (default: cpu)"
    )
    parser.add_argument(
        "--batch-invariant",
        action=argparse.BooleanOptionalAction,
        help="same bits for a request in every batch (default: on for cpu, off for cuda)",
    )
    parser.set_defaults(command=_kernels)


def _serve(args: argparse.Namespace) -> int:
    begin_s = time.monotonic()  # importing is part of the start
    from leadline.server.serve import serve

    try:
        server_config = _with_keys(config_from(args, ServerConfig))
    except ConfigError as error:
        sys.stderr.write(f"leadline serve: {error}\n")
        return 1
    return serve(config_from(args, EngineConfig), server_config, begin_s=begin_s)


def _with_keys(config: ServerConfig) -> ServerConfig:
    """The config with the keys themselves, from files and from the environment.

    Raises:
        ConfigError: a file of keys cannot be read.
    """
    from_environment = os.environ.pop(KEY_VARIABLE, "")  # no other process is to inherit it
    if from_environment and not config.api_key:
        config = dataclasses.replace(config, api_key=(from_environment,))
    keys: dict[str, Any] = {
        name: read_keys(getattr(config, name), flag_of(name)) for name in KEY_FIELDS
    }
    return dataclasses.replace(config, **keys)


def _chat(args: argparse.Namespace) -> int:
    from leadline.server.terminal_chat import ChatOptions, chat

    options = ChatOptions(
        url=args.url,
        model=args.model,
        system=args.system,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
    )
    return chat(options)


def _kernels(args: argparse.Namespace) -> int:
    from leadline.server.kernel_table import print_kernel_table

    invariant = args.batch_invariant
    print_kernel_table(
        args.device, batch_invariant=args.device == "cpu" if invariant is None else invariant
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
