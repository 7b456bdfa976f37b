"""Config files: YAML with a key for each field of the two configs, or for its flag."""

import argparse
import typing
from collections.abc import Hashable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from leadline.engine.config import EngineConfig
from leadline.engine.errors import ConfigError
from leadline.server.config import ServerConfig
from leadline.server.field_values import field_value
from leadline.server.flag_aliases import ALIASES
from leadline.server.flags import Alias, fields_of, flag_of
from leadline.server.nearest import did_you_mean

CONFIGS: tuple[type, type] = (EngineConfig, ServerConfig)
_MAX_BYTES = 2**20


def read_config_file(path: str) -> dict[str, Any]:
    """What a file says, by field.

    Raises:
        ConfigError: the file cannot be read, is no YAML, has an unknown key, or a value that its
            field cannot have; names the file.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--config: {path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"--config: {path} is larger than {_MAX_BYTES} bytes; no config is")
    return _values(data, path)


def preset_names() -> list[str]:
    """The presets that there are."""
    files = resources.files("leadline.server").joinpath("presets").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def read_preset(name: str) -> dict[str, Any]:
    """What a preset says, by field.

    Raises:
        ConfigError: there is no such preset.
    """
    names = preset_names()
    if name not in names:
        raise ConfigError(f"--preset is {name[:80]!r}; allowed: {', '.join(names)}")
    file = resources.files("leadline.server").joinpath("presets", f"{name}.yaml")
    return _values(file.read_bytes(), f"preset {name}")


@cache
def field_hints() -> dict[str, tuple[Any, tuple[str, ...] | None]]:
    """Type and choices of each field of both configs, by name."""
    hints: dict[str, tuple[Any, tuple[str, ...] | None]] = {}
    for config_type in CONFIGS:
        for name, hint in typing.get_type_hints(config_type).items():
            field = fields_of(config_type)[name]
            hints[name] = (hint, field.metadata["choices"])
    return hints


def _values(data: bytes, source: str) -> dict[str, Any]:
    content = _parse(data, source)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: there must be a key and a value a line, as port: 8000")
    values: dict[str, Any] = {}
    for key, value in content.items():
        name, alias = _field_of(key, source)
        if name in values:
            raise ConfigError(f"{source}: {key} sets {name}, which is set already; keep one")
        hint, choices = field_hints()[name]
        try:
            if alias is not None:
                values[name] = alias.parse(field_value(str(key), value, str, None))
            else:
                values[name] = field_value(name, value, hint, choices)
        except (ConfigError, argparse.ArgumentTypeError) as error:
            raise ConfigError(f"{source}: {error}") from None
    return values


def _field_of(key: Hashable, source: str) -> tuple[str, Alias | None]:
    """The field that a key means: `max_num_seqs`, `max-num-seqs`, `--max-num-seqs`.

    With it the flag that it is known by elsewhere, if the key is that.
    """
    wanted = _key(str(key))
    by_key: dict[str, tuple[str, Alias | None]] = {}
    for name in field_hints():
        by_key |= {name: (name, None), _key(flag_of(name)): (name, None)}
    by_key |= {_key(alias.flag): (name, alias) for name, alias in ALIASES.items()}
    if wanted not in by_key:
        advice = did_you_mean(wanted, by_key) or "; `leadline config` lists all keys"
        raise ConfigError(f"{source}: unknown key {str(key)[:80]!r}{advice}")
    return by_key[wanted]


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _parse(data: bytes, source: str) -> Any:
    import yaml  # help comes without it

    class Loader(yaml.SafeLoader):
        """Safe, and sees keys that are there twice."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = repr(self.construct_object(key_node, deep=True))
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key} is there twice", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        return Loader(data).get_single_data()
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is no valid YAML: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}: " if mark is not None else ""
    return place + " ".join(str(problem).split())
