"""What the user asked of the HTTP side; the engine's half is `leadline.engine.config`."""

from dataclasses import dataclass, field
from typing import Any

from leadline.engine.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8000"  # where a server with the defaults listens
MAX_PORT = 65535


def _option(default: Any, help_text: str, *, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how the server listens.

    Each field's metadata holds `help` (a phrase for people) and `choices` (or None).
    """

    host: str = _option("127.0.0.1", "address to listen on; 0.0.0.0 for every network")
    port: int = _option(8000, "port to listen on; 0 for any free one")
    drain_timeout_s: float = _option(
        30.0, "seconds that running requests have to finish after a stop signal"
    )
    deadline_s: float | None = _option(
        None, "seconds that a request may take which gives no deadline_s (default: any time)"
    )
    log_level: str = _option(
        "info", "least important log lines to show", choices=("debug", "info", "warning", "error")
    )
    access_log: bool = _option(False, "a log line for each HTTP request")

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: names each value and what is allowed.
        """
        problems = []
        if not 0 <= self.port <= MAX_PORT:
            problems.append(f"port is {self.port}; allowed: 0 to {MAX_PORT}")
        if not 0 <= self.drain_timeout_s < float("inf"):
            problems.append(f"drain_timeout_s is {self.drain_timeout_s}; allowed: at least 0")
        if self.deadline_s is not None and not 0 < self.deadline_s < float("inf"):
            problems.append(f"deadline_s is {self.deadline_s}; allowed: greater than 0")
        choices = type(self).__dataclass_fields__["log_level"].metadata["choices"]
        if self.log_level not in choices:
            problems.append(f"log_level is {self.log_level!r}; allowed: {', '.join(choices)}")
        if problems:
            raise ConfigError("; ".join(problems))
