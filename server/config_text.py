"""`leadline config`: all settings as YAML that `--config` reads, with what they mean."""

import dataclasses
from typing import Any

from leadline.server.config import KEY_FIELDS
from leadline.server.config_file import CONFIGS
from leadline.server.field_values import plain
from leadline.server.settings import DEFAULT, Settings

_WIDTH = 100
_SECTIONS = ("the engine", "the server")


def config_text(settings: Settings, *, shows_keys: bool = False) -> str:
    """Every field with its help, its value, and where that is from.

    What is not set is commented out, so that the file stays right where a default changes. Keys
    are left out unless `shows_keys`; files of keys are named.
    """
    lines = ["# Settings of Leadline; `leadline serve --config FILE` reads them."]
    for config_type, config, title in zip(
        CONFIGS, (settings.engine, settings.server), _SECTIONS, strict=True
    ):
        lines += ["", f"##### {title}"]
        for field in dataclasses.fields(config_type):
            origin = settings.origins.get(field.name, DEFAULT)
            value = getattr(config, field.name)
            lines += ["", *_comment(field)]
            if field.name in KEY_FIELDS and not shows_keys and _has_keys(value):
                lines.append(f"# {field.name}: not shown ({origin}); --show-keys shows it")
                continue
            text = _yaml(field.name, value)
            if origin == DEFAULT:
                lines += [f"# {line}" for line in text]
            else:
                lines += [f"# from: {origin}", *text]
    return "\n".join(lines) + "\n"


def _comment(field: "dataclasses.Field[Any]") -> list[str]:
    import textwrap

    text = field.metadata["help"]
    if choices := field.metadata["choices"]:
        text += f": {', '.join(choices)}"
    return textwrap.wrap(
        text, _WIDTH - 2, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _has_keys(value: tuple[str, ...]) -> bool:
    return any(not key.startswith("@") for key in value)


def _yaml(name: str, value: Any) -> list[str]:
    import yaml

    text: str = yaml.safe_dump({name: plain(value)}, width=_WIDTH)
    return text.rstrip("\n").split("\n")
