"""The command `leadline` and its subcommands.

What a command needs is imported when it runs, so that help comes at once.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from leadline.engine.errors import ConfigError
from leadline.server.bench.command import add_bench
from leadline.server.config import DEFAULT_URL, KEY_VARIABLE
from leadline.server.flags import integer
from leadline.server.parser import Parser
from leadline.server.plan.command import add_plan
from leadline.server.serve_flags import EXAMPLES, NUMBERS, add_serve_flags

_Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class _Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
        from leadline.server.version import version

        print(f"leadline {version()}")
        parser.exit()


def main(argv: Sequence[str] | None = None, *, shows_all: bool = False) -> int:
    """Run a command; returns the exit status.

    Args:
        argv: the command and its flags; None for those of this process.
        shows_all: whether a help that is asked for shows rare flags too.
    """
    try:
        args = make_parser(shows_all=shows_all).parse_args(argv)
    except SystemExit as end:
        return int(end.code or 0)
    command: Callable[[argparse.Namespace], int] = args.command
    return command(args)


def make_parser(*, shows_all: bool = False) -> Parser:
    """The parser of all commands; `shows_all`: rare flags too are in the help."""
    parser = Parser(
        prog="leadline", description="An inference server for the DeepSeek-V3 model family."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command_name", required=True
    )
    _add_serve(commands, shows_all=shows_all)
    _add_chat(commands)
    add_bench(commands)
    _add_config(commands, shows_all=shows_all)
    _add_doctor(commands, shows_all=shows_all)
    add_plan(commands)
    _add_kernels(commands)
    _add_completion(commands)
    return parser


def _add_serve(commands: _Commands, *, shows_all: bool) -> None:
    parser = commands.add_parser(
        "serve",
        help="serve a model over HTTP",
        usage="leadline serve [MODEL] [flags]",
        add_help=False,
        description="Serve a model over an OpenAI-compatible HTTP interface.",
        epilog=f"{EXAMPLES}\n\n{NUMBERS}",
    )
    add_serve_flags(parser, shows_all=shows_all, print_all=lambda: _print_all("serve"))
    parser.set_defaults(command=_serve)


def _add_config(commands: _Commands, *, shows_all: bool) -> None:
    parser = commands.add_parser(
        "config",
        help="show all settings as a file to edit",
        usage="leadline config [MODEL] [flags of serve]",
        add_help=False,
        description="Show all settings, with what they mean and where they are from, as YAML\n"
        "that `leadline serve --config FILE` reads.",
    )
    parser.add_argument("--show-keys", action="store_true", help="show API keys that were given")
    add_serve_flags(parser, shows_all=shows_all, print_all=lambda: _print_all("config"))
    parser.set_defaults(command=_config)


def _add_doctor(commands: _Commands, *, shows_all: bool) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check machine and model, and say what to mend",
        usage="leadline doctor [MODEL] [flags of serve]",
        add_help=False,
        description="Check whether this machine could serve the model with these flags, without\n"
        "loading its weights. The exit status is 1 if there is something to mend.",
    )
    add_serve_flags(parser, shows_all=shows_all, print_all=lambda: _print_all("doctor"))
    parser.set_defaults(command=_doctor)


def _add_completion(commands: _Commands) -> None:
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands and flags",
        description="Print a script that lets the shell complete commands and flags.\n\n"
        '  bash: eval "$(leadline completion bash)"\n'
        "  zsh:  leadline completion zsh > FOLDER/_leadline, FOLDER being one of $fpath",
    )
    parser.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    parser.set_defaults(command=_completion)


def _add_chat(commands: _Commands) -> None:
    parser = commands.add_parser(
        "chat",
        help="talk to a running server from the terminal",
        description="Talk to a running server; reads one message a line if input is piped.",
    )
    parser.add_argument(
        "--url", default=DEFAULT_URL, help=f"address of the server (default: {DEFAULT_URL})"
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"the server's key, or @FILE that holds it (default: ${KEY_VARIABLE})",
    )
    parser.add_argument("--model", metavar="NAME", help="model (default: the server's first)")
    parser.add_argument("--system", metavar="TEXT", help="system message (default: none)")
    parser.add_argument(
        "--max-tokens", type=integer, metavar="N", help="most tokens of an answer (default: all)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="X", help="0 for the likeliest (default: the model's)"
    )
    parser.add_argument(
        "--thinking", action="store_true", help="let the model think before it answers"
    )
    parser.add_argument(
        "--demo-tools",
        action="store_true",
        help="offer tools for weather (made up), time and sums, and answer their calls",
    )
    parser.set_defaults(command=_chat)


def _add_kernels(commands: _Commands) -> None:
    parser = commands.add_parser(
        "kernels",
        help="show which kernels are used, and why",
        description="Show the implementation of each operation, and why others were rejected.",
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


def _print_all(name: str) -> None:
    """The help of a command with its rare flags."""
    main([name, "--help"], shows_all=True)


def _serve(args: argparse.Namespace) -> int:
    begin_s = time.monotonic()  # importing is part of the start
    from leadline.server.serve import serve
    from leadline.server.settings import settings_from, with_keys
    from leadline.server.torchrun import under_torchrun

    try:
        settings = settings_from(args)
        server_config = with_keys(settings.server)
        engine_config = under_torchrun(settings.engine, os.environ)
    except ConfigError as error:
        sys.stderr.write(f"leadline serve: {error}\n")
        return 1
    return serve(engine_config, server_config, begin_s=begin_s)


def _config(args: argparse.Namespace) -> int:
    from leadline.server.config_text import config_text
    from leadline.server.settings import settings_from

    try:
        settings = settings_from(args)
        settings.server.check()
    except ConfigError as error:
        sys.stderr.write(f"leadline config: {error}\n")
        return 1
    sys.stdout.write(config_text(settings, shows_keys=args.show_keys))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from leadline.server.doctor.doctor import diagnose
    from leadline.server.settings import settings_from, with_keys

    try:
        settings = settings_from(args)
        settings = dataclasses.replace(settings, server=with_keys(settings.server))
    except ConfigError as error:
        sys.stderr.write(f"leadline doctor: {error}\n")
        return 1
    return diagnose(settings)


def _completion(args: argparse.Namespace) -> int:
    import shtab

    sys.stdout.write(shtab.complete(make_parser(shows_all=True), args.shell) + "\n")
    return 0


def _chat(args: argparse.Namespace) -> int:
    from leadline.server.settings import client_key
    from leadline.server.terminal_chat import ChatOptions, chat

    try:
        api_key = client_key(args.api_key)
    except ConfigError as error:
        sys.stderr.write(f"leadline chat: {error}\n")
        return 1
    options = ChatOptions(
        url=args.url,
        model=args.model,
        system=args.system,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        thinking=args.thinking,
        demo_tools=args.demo_tools,
        api_key=api_key,
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
