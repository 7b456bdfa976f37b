"""Every limit of the HTTP side: its default, what else it may be, and what it bounds."""

import argparse
import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from leadline.engine import bounds
from leadline.engine.errors import ConfigError
from leadline.server.flags import integer

FLAG = "--limit"
_DAY_S = 86_400.0


def _limit(default: Any, unit: str, help_text: str, at_least: float, at_most: float) -> Any:
    metadata = {"unit": unit, "help": help_text, "at_least": at_least, "at_most": at_most}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Set by `--limit name=value`; what the engine bounds by itself cannot be set beyond that.

    Each field's metadata holds `unit`, `help`, `at_least` and `at_most`.
    """

    # A connection
    connections: int = _limit(8192, "connections", "open at a time, to all workers", 1, 1_000_000)
    head_bytes: int = _limit(
        64 * 2**10, "bytes", "request line and headers of a request", 2**10, 16 * 2**20
    )
    headers: int = _limit(128, "headers", "of a request", 8, 10_000)
    url_bytes: int = _limit(16 * 2**10, "bytes", "path and query of a request", 64, 2**20)
    head_s: float = _limit(
        10.0,
        "seconds",
        "from a request's first byte to its last header; of a TLS handshake",
        0.01,
        3600,
    )
    body_bytes: int = _limit(32 * 2**20, "bytes", "body of a request", 2**10, 2**31)
    body_pause_s: float = _limit(30.0, "seconds", "without any more of a body", 0.01, 3600)
    idle_s: float = _limit(75.0, "seconds", "that an idle connection is kept", 0.01, 86_400)
    unread_bytes: int = _limit(
        64 * 2**10, "bytes", "kept in this process for a client that does not read", 2**10, 2**30
    )
    unread_s: float = _limit(
        30.0, "seconds", "that a client may leave them unread before it is cut", 0.01, 86_400
    )
    unread_outputs: int = _limit(
        4096, "steps", "kept for a client that does not read; then it is cut", 16, 1_000_000
    )
    # A request's fields
    json_depth: int = _limit(128, "levels", "of lists and objects in each other", 8, 512)
    prompt_tokens: int = _limit(
        0, "tokens", "of a prompt; 0 for all that the model has room for", 0, 2**31
    )
    prompts: int = _limit(256, "prompts", "of a request", 1, 100_000)
    n: int = _limit(128, "choices", "of a prompt ('n')", 1, 100_000)
    choices: int = _limit(1024, "choices", "of a request: its prompts times 'n'", 1, 100_000)
    stop_strings: int = _limit(16, "strings", "in 'stop'", 0, 1024)
    stop_chars: int = _limit(1024, "characters", "of each of them", 1, 2**20)
    stop_token_ids: int = _limit(256, "tokens", "in 'stop_token_ids'", 0, bounds.STOP_TOKEN_IDS)
    bad_words: int = _limit(128, "words", "in 'bad_words'", 0, bounds.BAD_WORDS // 2)
    bad_word_chars: int = _limit(128, "characters", "of each of them", 1, bounds.BAD_WORD_TOKENS)
    logit_bias: int = _limit(1024, "tokens", "in 'logit_bias'", 0, bounds.LOGIT_BIASES)
    allowed_token_ids: int = _limit(
        16_384, "tokens", "in 'allowed_token_ids'", 1, bounds.ALLOWED_TOKEN_IDS
    )
    logprobs: int = _limit(20, "tokens", "told of at each position", 0, bounds.LOGPROBS)
    tools: int = _limit(512, "tools", "of a request", 0, 100_000)
    label_bytes: int = _limit(
        512, "bytes", "of 'user', 'user_id', 'cache_salt' and their like", 1, bounds.LABEL_BYTES
    )
    metadata_pairs: int = _limit(16, "pairs", "in 'metadata'", 0, 1024)
    metadata_key_chars: int = _limit(64, "characters", "of a key in 'metadata'", 1, 2**16)
    metadata_value_chars: int = _limit(512, "characters", "of a value in 'metadata'", 1, 2**20)
    deadline_s: float = _limit(
        7 * _DAY_S, "seconds", "that a request may ask for in 'deadline_s'", 0.01, 365 * _DAY_S
    )
    # What a request makes the server compute
    grammar_bytes: int = _limit(
        256 * 2**10, "bytes", "of a schema, an expression or a grammar", 64, bounds.GRAMMAR_BYTES
    )
    grammar_choices: int = _limit(1000, "texts", "in 'structured_outputs.choice'", 1, 100_000)
    grammar_cpu_s: float = _limit(
        0.2, "seconds", "of processor time for compiling a grammar and trying it", 0.01, 60
    )
    grammar_s: float = _limit(0.45, "seconds", "for the same, by the clock", 0.01, 120)
    template_s: float = _limit(5.0, "seconds", "for rendering the chat template", 0.05, 600)
    template_bytes: int = _limit(256 * 2**20, "bytes", "of memory for the same", 16 * 2**20, 2**36)
    # What is kept
    stored_responses: int = _limit(1000, "responses", "kept for /v1/responses", 0, 10_000_000)
    stored_response_bytes: int = _limit(256 * 2**20, "bytes", "of them, together", 0, 2**40)
    log_chars: int = _limit(8192, "characters", "of a log message", 256, 2**24)

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            ConfigError: names each value and what is allowed.
        """
        problems = []
        for limit in dataclasses.fields(self):
            value = getattr(self, limit.name)
            at_least, at_most = limit.metadata["at_least"], limit.metadata["at_most"]
            if not (math.isfinite(value) and at_least <= value <= at_most):
                problems.append(
                    f"the limit {limit.name} is {value:g}; allowed: {at_least:g} to {at_most:g} "
                    f"{limit.metadata['unit']}"
                )
        if problems:
            raise ConfigError("; ".join(problems))

    @classmethod
    def of(cls, assignments: Iterable[str]) -> "Limits":
        """The limits with some of them set, as `stop_strings=32` or `body_bytes=64M`.

        Raises:
            ConfigError: a limit that there is not, or a value that it cannot have.
        """
        types = {limit.name: type(limit.default) for limit in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        for assignment in assignments:
            name, equals, text = (part.strip() for part in assignment.partition("="))
            if not equals or name not in types:
                raise ConfigError(
                    f"{FLAG} {assignment[:80]!r} is not NAME=VALUE with one of these names: "
                    f"{', '.join(types)}"
                )
            try:
                values[name] = integer(text) if types[name] is int else float(text)
            except (argparse.ArgumentTypeError, ValueError):
                raise ConfigError(
                    f"{FLAG} {name} is {text[:40]!r}; allowed: a number, as 4096, 4k or 4K"
                ) from None
        limits = cls(**values)
        limits.check()
        return limits


def table() -> str:
    """All limits as a table in Markdown."""
    defaults = Limits()
    lines = ["| limit | default | unit | what it bounds | allowed |", "|---|---|---|---|---|"]
    for limit in dataclasses.fields(Limits):
        meta = limit.metadata
        allowed = f"{_shown(meta['at_least'])} to {_shown(meta['at_most'])}"
        default = _shown(getattr(defaults, limit.name))
        lines.append(
            f"| `{limit.name}` | {default} | {meta['unit']} | {meta['help']} | {allowed} |"
        )
    return "\n".join(lines)


def _shown(value: float) -> str:
    """A number as `--limit` takes it."""
    for factor, suffix in ((2**30, "G"), (2**20, "M"), (2**10, "K")):
        if value >= factor and value % factor == 0:
            return f"{value // factor:g}{suffix}"
    return f"{value:.10g}"
