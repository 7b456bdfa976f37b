"""What the user asked of the HTTP side; the engine's half is `leadline.engine.config`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from leadline.engine.errors import ConfigError
from leadline.server.cors_origins import problems_of_origins
from leadline.server.keys import problems_of
from leadline.server.limits import Limits

DEFAULT_URL = "http://127.0.0.1:8000"  # where a server with the defaults listens
KEY_VARIABLE = "LEADLINE_API_KEY"
MAX_PORT = 65535
MAX_API_WORKERS = 256
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
    port: int = _option(8000, "port; 0 for any free one")
    api_workers: int = _option(
        1,
        "processes that answer requests; more than one where one is busy all the time, as with "
        "thousands of streams",
    )
    drain_timeout_s: float = _option(
        30.0, "seconds that running requests have to finish after a stop signal"
    )
    deadline_s: float | None = _option(
        None, "seconds that a request may take which gives no deadline_s (default: any time)"
    )
    engine_timeout_s: float = _option(
        300.0, "seconds without a step after which an engine that has work is ended; 0 for never"
    )
    loading_timeout_s: float = _option(
        900.0, "seconds without news after which an engine that loads is ended; 0 for never"
    )
    max_engine_restarts: int = _option(
        5, "restarts of a dead engine in a row, without a step in between; 0 for none"
    )
    resume: bool = _option(True, "let requests go on where they were when the engine restarts")
    api_key: tuple[str, ...] = _option(
        (),
        "key that opens the API, or @FILE with one a line; may be repeated (default: "
        f"${KEY_VARIABLE})",
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
    chat_template: str | None = _option(
        None, "file of a chat template in jinja (default: the checkpoint's)"
    )
    generation_config: str = _option(
        "auto",
        "where sampling defaults are from: auto for the checkpoint's generation_config.json, none, "
        "a file, or a directory that holds one",
    )
    override_generation_config: str | None = _option(
        None, 'sampling defaults that win over it, as JSON: {"temperature": 0.6} (default: none)'
    )
    ssl_certfile: str | None = _option(
        None, "serve HTTPS with the certificate chain in this PEM file (default: HTTP)"
    )
    ssl_keyfile: str | None = _option(
        None, "its private key, in PEM (default: it is in the certificate's file)"
    )
    cors_origin: tuple[str, ...] = _option(
        (),
        "origin whose web pages may call the API, as https://host; * for all; may be repeated "
        "(default: none)",
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
    otlp_traces_endpoint: str | None = _option(
        None,
        "URL of an OpenTelemetry receiver that gets a span for each request, http://HOST:4318 "
        "(OTLP over HTTP) or grpc://HOST:4317 (default: none)",
    )
    access_log: bool = _option(False, "a log line for each HTTP request")

    @property
    def scheme(self) -> str:
        """Of the URLs under which it answers."""
        return "http" if self.ssl_certfile is None else "https"

    @property
    def limits(self) -> Limits:
        """What `limit` says.

        Raises:
            ConfigError: as `Limits.of`.
        """
        return Limits.of(self.limit)

    @property
    def generation_overrides(self) -> dict[str, Any]:
        """What `override_generation_config` says.

        Raises:
            ConfigError: it is no JSON object.
        """
        text = self.override_generation_config
        if text is None:
            return {}
        try:
            overrides = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"override_generation_config is no valid JSON: {error}") from None
        if not isinstance(overrides, dict):
            raise ConfigError(
                'override_generation_config is no JSON object; allowed: {"temperature": 0.6}'
            )
        return overrides

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: names each value and what is allowed.
        """
        problems = []
        if not 0 <= self.port <= MAX_PORT:
            problems.append(f"port is {self.port}; allowed: 0 to {MAX_PORT}")
        if not 1 <= self.api_workers <= MAX_API_WORKERS:
            problems.append(f"api_workers is {self.api_workers}; allowed: 1 to {MAX_API_WORKERS}")
        problems += [
            f"{name} is {getattr(self, name)}; allowed: at least 0"
            for name in ("drain_timeout_s", "engine_timeout_s", "loading_timeout_s")
            if not 0 <= getattr(self, name) < float("inf")
        ]
        if self.deadline_s is not None and not 0 < self.deadline_s < float("inf"):
            problems.append(f"deadline_s is {self.deadline_s}; allowed: greater than 0")
        if self.max_engine_restarts < 0:
            problems.append(
                f"max_engine_restarts is {self.max_engine_restarts}; allowed: at least 0"
            )
        for name in KEY_FIELDS:
            problems += problems_of(name, getattr(self, name))
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            problems.append("ssl_keyfile is given without ssl_certfile; give both")
        problems += problems_of_origins(self.cors_origin)
        for parse in (lambda: self.limits, lambda: self.generation_overrides):
            try:
                parse()
            except ConfigError as error:
                problems.append(str(error))
        problems += self._wrong_choices()
        if problems:
            raise ConfigError("; ".join(problems))

    def _wrong_choices(self) -> Iterator[str]:
        for field_ in fields(self):
            choices, value = field_.metadata["choices"], getattr(self, field_.name)
            if choices is not None and value not in choices:
                yield f"{field_.name} is {value!r}; allowed: {', '.join(choices)}"
