"""The flags of `leadline serve`: those that many need in groups, all of them in `--help-all`."""

import argparse
from collections.abc import Callable

from leadline.server.config_file import CONFIGS
from leadline.server.flag_aliases import ALIASES
from leadline.server.flags import add_flag, fields_of

# Every other field has its flag too; those are shown by --help-all alone.
COMMON = {
    "model": (
        "served_model_name",
        "chat_template",
        "max_model_len",
        "speculative_tokens",
    ),
    "memory and speed": (
        "max_num_seqs",
        "kv_tokens",
        "max_queued_requests",
    ),
    "server": (
        "host",
        "port",
        "api_key",
        "ssl_certfile",
        "ssl_keyfile",
        "cors_origin",
    ),
}
REST = ("more of the engine", "more of the server")
EXAMPLES = """\
examples:
  leadline serve                                   the built-in model, on port 8000
  leadline serve deepseek-ai/DeepSeek-V2-Lite --preset latency
  leadline serve /models/r1 --host 0.0.0.0 --api-key @keys.txt --config serve.yaml
  leadline config --preset laptop > serve.yaml     all settings, as a file to edit"""
NUMBERS = (
    "Numbers may end in k, m or g (thousands, millions, billions) or in K, M or G (powers of 1024)."
)


def add_serve_flags(
    parser: argparse.ArgumentParser, *, shows_all: bool, print_all: Callable[[], None]
) -> None:
    """Add the model, the config file and a flag for each field of both configs.

    Args:
        parser: gets them.
        shows_all: in the help, rather than only the common ones.
        print_all: shows the help of a parser that has `shows_all`.
    """

    class HelpAll(argparse.Action):
        """`--help-all`."""

        def __call__(self, parser: argparse.ArgumentParser, *args: object) -> None:
            print_all()
            parser.exit()

    model = fields_of(CONFIGS[0])["model"]
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        default=argparse.SUPPRESS,
        help=f"{model.metadata['help']} (default: {model.default})",
    )
    files = parser.add_argument_group(
        "configuration; flags win over the file, that over the preset"
    )
    files.add_argument("--config", metavar="FILE", help="YAML with any of the settings")
    files.add_argument("--preset", metavar="NAME", help="latency, throughput or laptop")
    files.add_argument("-h", "--help", action="help", help="show the common flags and exit")
    files.add_argument("--help-all", action=HelpAll, nargs=0, help="show every flag and exit")
    owners = {name: config_type for config_type in CONFIGS for name in fields_of(config_type)}
    del owners["model"]
    for title, names in COMMON.items():
        group = parser.add_argument_group(title)
        for name in names:
            alias = ALIASES.get(name)
            add_flag(group, owners.pop(name), name, alias=alias, shows_alias=shows_all)
    for config_type, title in zip(CONFIGS, REST, strict=True):
        group = parser.add_argument_group(title)
        for name in [name for name, owner in owners.items() if owner is config_type]:
            add_flag(group, config_type, name, alias=ALIASES.get(name), is_shown=shows_all)
