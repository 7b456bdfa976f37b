"""The command `leadline plan`."""

import argparse
import json
import re
import sys

from leadline.engine.errors import ConfigError
from leadline.loader.errors import LoaderError
from leadline.server.flags import integer, number
from leadline.server.parser import Parser

_GPUS = re.compile(r"(?:([1-9][0-9]*)\s*x\s*)?([A-Za-z][A-Za-z0-9]*)", re.IGNORECASE)
_EXAMPLES = """examples:
  leadline plan deepseek-v3 --gpus 32xH800 --itl-ms 50
  leadline plan ./DeepSeek-V2-Lite --gpus H100 --input 2000 --output 500"""


def add_plan(commands: "argparse._SubParsersAction[Parser]") -> None:
    """Add `plan`."""
    parser = commands.add_parser(
        "plan",
        help="say what a model needs of GPUs, and what to expect of them",
        description="Plan memory, parallel layout and speed of a model on GPUs, and print the\n"
        "commands that serve it. Nothing is downloaded: a config.json is enough, and for the\n"
        "public models of the family a name.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="directory with a config.json, or the name of a model")
    add("--gpus", required=True, type=gpus, metavar="NxGPU", help="GPUs of the unit, as 32xH800")
    add("--input", type=positive, default=4096, metavar="N", help="prompt tokens (default: 4096)")
    add("--output", type=positive, default=1024, metavar="N", help="answer tokens (default: 1024)")
    add("--itl-ms", type=number, metavar="X", help="most time between tokens (default: any)")
    add("--speculative-tokens", type=integer, metavar="N", help="MTP drafts (default: the best)")
    add("--tensor-parallel-size", type=positive, metavar="N", help="default: the best")
    add("--data-parallel-size", type=positive, metavar="N", help="default: the best")
    add(
        "--enable-expert-parallel",
        action=argparse.BooleanOptionalAction,
        help="place experts whole (default: the better)",
    )
    add(
        "--kv-cache-dtype",
        choices=("bfloat16", "fp8"),
        default="bfloat16",
        help="number format of cached latents (default: bfloat16)",
    )
    add("--gpus-per-node", type=positive, default=8, metavar="N", help="default: 8")
    add(
        "--memory-headroom-gib",
        type=number,
        default=2.0,
        metavar="X",
        help="memory to leave free on each GPU (default: 2)",
    )
    experts = parser.add_argument_group("experts in the host's memory")
    add = experts.add_argument
    add("--expert-device", choices=("auto", "cpu"), default="auto", help="cpu: computed there")
    add("--expert-gpu-count", type=integer, default=0, metavar="N", help="of a layer, on the GPU")
    add("--host-memory-gib", type=number, metavar="X", help="of the machine")
    add("--host-bandwidth", type=number, default=400, metavar="X", help="GB/s (default: 400)")
    add("--host-cores", type=positive, default=64, metavar="N", help="default: 64")
    add = parser.add_argument
    add("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=_plan)


def gpus(text: str) -> tuple[int, str]:
    """`32xH800` or `H800`.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    match = _GPUS.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs; write it as 32xH800")
    return int(match[1] or 1), match[2]


def positive(text: str) -> int:
    """A whole number of at least 1; otherwise as `integer`."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return value


def _plan(args: argparse.Namespace) -> int:
    from leadline.engine.planning.planner import choose
    from leadline.loader.family import hub_name
    from leadline.server.console import make_console
    from leadline.server.plan.report import as_json, print_report
    from leadline.server.plan.wish import wish_of

    try:
        choice = choose(wish_of(args))
    except (ConfigError, LoaderError) as error:
        sys.stderr.write(f"leadline plan: {error}\n")
        return 1
    name = hub_name(args.model) or args.model
    if args.json:
        sys.stdout.write(json.dumps(as_json(choice, name), indent=2) + "\n")
    else:
        print_report(make_console(), choice, name)
    return 0
