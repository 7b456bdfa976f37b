"""What the engine runs with, line by line, and why: for the start-up table."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from leadline.engine.config import EngineConfig, ResolvedConfig


_OTHER_NAMES = {"num_host_pages": "host_kv_tokens", "device": "what this machine has"}


class ConfigLine(NamedTuple):
    """One resolved value, for the start-up table."""

    name: str
    value: str
    reason: str


def config_lines(config: "EngineConfig", resolved: "ResolvedConfig") -> list[ConfigLine]:
    """A line for each value that has not been explained where it was settled."""
    explained = (
        *("model", "max_model_len", "num_pages", "other_model_names"),
        *("tensor_parallel_size", "data_parallel_size", "enable_expert_parallel"),
        *("num_redundant_experts", "expert_balance_steps"),
    )
    return [
        ConfigLine(name, _shown(getattr(resolved, name)), _reason(config, name))
        for name in resolved.__struct_fields__
        if name not in explained and (name in _OTHER_NAMES or name in config.__dataclass_fields__)
    ]


def _reason(config: "EngineConfig", name: str) -> str:
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    default = config.__dataclass_fields__[name].default
    asked = getattr(config, name)
    if name == "seed" and asked is None:
        return "drawn at start"
    if asked in (None, "auto"):
        return "chosen for this machine and model"
    return "default" if asked == default or asked == {} else "as given"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return ", ".join(f"{op}={name}" for op, name in value.items()) or "best available"
    return str(value)
