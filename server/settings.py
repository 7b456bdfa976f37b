"""The two configs from all that may set them: flags, then file, preset, environment, defaults."""

import argparse
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.config import KEY_FIELDS, KEY_VARIABLE, ServerConfig
from leadline.server.config_file import CONFIGS, read_config_file, read_preset
from leadline.server.flags import flag_of, values_from
from leadline.server.keys import problems_of, read_keys

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asked for.

    Attributes:
        origins: where each field's value is from, by field: a flag, a file, a preset, the
            environment, or `default`.
    """

    engine: EngineConfig
    server: ServerConfig
    origins: Mapping[str, str]


def settings_from(args: argparse.Namespace) -> Settings:
    """Put the layers on top of each other; a list is replaced, never added to.

    Keys stay as they are given: `with_keys` reads them.

    Args:
        args: the flags of `serve`; `config` and `preset` name the file and the preset, or None.

    Raises:
        ConfigError: a file or a preset that cannot be used.
    """
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if key := os.environ.get(KEY_VARIABLE):
        layers.append((f"${KEY_VARIABLE}", {"api_key": (key,)}))
    if args.preset is not None:
        layers.append((f"preset {args.preset}", read_preset(args.preset)))
    if args.config is not None:
        layers.append((str(args.config), read_config_file(args.config)))
    layers.append(("flag", values_from(args, CONFIGS)))
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in layers:
        values |= layer
        origins |= dict.fromkeys(layer, origin)
    engine, server = (
        config_type(**{name: values[name] for name in _names(config_type) if name in values})
        for config_type in CONFIGS
    )
    return Settings(engine=engine, server=server, origins=origins)


def with_keys(config: ServerConfig) -> ServerConfig:
    """The config with the keys themselves, out of the files that it names.

    Raises:
        ConfigError: a file of keys cannot be read.
    """
    os.environ.pop(KEY_VARIABLE, None)  # no other process is to inherit it
    keys: dict[str, Any] = {
        name: read_keys(getattr(config, name), flag_of(name)) for name in KEY_FIELDS
    }
    return dataclasses.replace(config, **keys)


def client_key(given: str | None) -> str | None:
    """The key of a client: as given, or of the environment; None without one.

    Raises:
        ConfigError: a file that cannot be read, or something that is no key.
    """
    value = given or os.environ.get(KEY_VARIABLE)
    if not value:
        return None
    keys = read_keys((value,), "--api-key")
    if problems := problems_of("--api-key", keys):
        raise ConfigError(problems[0])
    return keys[0]


def _names(config_type: type) -> list[str]:
    return [field.name for field in dataclasses.fields(config_type)]
