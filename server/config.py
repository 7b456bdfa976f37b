"""What the user asked of the HTTP side; the engine's half is `leadline.engine.config`."""

from dataclasses import dataclass, field
from typing import Any

from leadline.engine.errors import ConfigError
from leadline.server.keys import problems_of
from leadline.server.limits import Limits

DEFAULT_URL = "http://127.0.0.1:8000"  # where a server with the defaults listens
MAX_PORT = 65535
KEY_FIELDS = ("api_key", "admin_api_key", "metrics_api_key")


def _option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] | None = None,
    is_secret: bool = False,
) -> Any:
    metadata = {"help": help_text, "choices": choices}
    return field(default=default, metadata=metadata, repr=not is_secret)


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
    engine_timeout_s: float = _option(
        300.0, "seconds without a step after which an engine that has work is ended; 0 for never"
    )
    max_engine_restarts: int = _option(
        5, "restarts of a dead engine in a row, without a step in between; 0 for none"
    )
    resume: bool = _option(True, "let requests go on where they were when the engine restarts")
    api_key: tuple[str, ...] = _option(
        (),
        "key that opens the API, or @FILE with one a line; may be repeated (default: "
        "$LEADLINE_API_KEY; without one, everybody is let in)",
        is_secret=True,
    )
    admin_api_key: tuple[str, ...] = _option(
        (),
        "key for what acts on the server; as --api-key (default: the API's keys)",
        is_secret=True,
    )
    metrics_api_key: tuple[str, ...] = _option(
        (),
        "key for /metrics; as --api-key (default: everybody may read them)",
        is_secret=True,
    )
    strict: bool = _option(False, "refuse a request with a field that nobody knows")
    limit: tuple[str, ...] = _option(
        (),
        "NAME=VALUE, as body_bytes=64M; may be repeated; docs/security.md lists all",
    )
    log_level: str = _option(
        "info", "least important log lines to show", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _option(
        "text", "log lines for people, or JSON for programs", choices=("text", "json")
    )
    log_requests: bool = _option(
        False, "a log line for each request that has ended: its numbers, not what it said"
    )
    access_log: bool = _option(False, "a log line for each HTTP request")

    @property
    def limits(self) -> Limits:
        """What `limit` says.

        Raises:
            ConfigError: as `Limits.of`.
        """
        return Limits.of(self.limit)

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
        if not 0 <= self.engine_timeout_s < float("inf"):
            problems.append(f"engine_timeout_s is {self.engine_timeout_s}; allowed: at least 0")
        if self.max_engine_restarts < 0:
            problems.append(
                f"max_engine_restarts is {self.max_engine_restarts}; allowed: at least 0"
            )
        for name in KEY_FIELDS:
            problems += problems_of(name, getattr(self, name))
        try:
            Limits.of(self.limit)
        except ConfigError as error:
            problems.append(str(error))
        for name in ("log_level", "log_format"):
            value, choices = getattr(self, name), type(self).__dataclass_fields__[name].metadata
            if value not in choices["choices"]:
                allowed = ", ".join(choices["choices"])
                problems.append(f"{name} is {value!r}; allowed: {allowed}")
        if problems:
            raise ConfigError("; ".join(problems))
