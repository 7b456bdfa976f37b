"""A request's fields against the limits that the operator has set."""

from collections.abc import Iterator
from typing import Any

import msgspec

from leadline.server.errors import BadRequestError, invalid
from leadline.server.limits import FLAG, Limits
from leadline.server.sampling_types import SamplingFields

_LABELS = (
    "user",
    "user_id",
    "safety_identifier",
    "prompt_cache_key",
    "cache_salt",
    "request_id",
    "rid",
)
_LISTS = ("stop_token_ids", "bad_words", "logit_bias", "allowed_token_ids")


def check_limits(fields: SamplingFields, limits: Limits) -> None:
    """Refuse a request of which a field has more than is allowed.

    Raises:
        BadRequestError: names the field, what it has, and the limit.
    """
    for param, size, unit, name in _sizes(fields):
        most = getattr(limits, name)
        if size > most:
            raise invalid(param, f"'{param}' {_has(size, unit)}; {allowed(most, name)}")


def check_prompts(num_prompts: int, num_choices: int, limits: Limits) -> None:
    """Refuse too many prompts, or too many choices of them.

    Raises:
        BadRequestError: names the limit.
    """
    if num_prompts > limits.prompts:
        advice = allowed(limits.prompts, "prompts")
        raise invalid("prompt", f"'prompt' has {num_prompts} prompts; {advice}")
    if num_choices > limits.choices:
        raise invalid(
            "n",
            f"'n' times the number of prompts is {num_choices}; "
            f"{allowed(limits.choices, 'choices')}; send fewer prompts at once",
        )


def check_prompt_tokens(num_tokens: int, param: str, limits: Limits) -> None:
    """Refuse a prompt that is longer than the operator allows.

    Raises:
        BadRequestError: names the limit.
    """
    if 0 < limits.prompt_tokens < num_tokens:
        raise BadRequestError(
            f"This server's maximum context length for a prompt is {limits.prompt_tokens} tokens, "
            f"but the prompt has {num_tokens}; shorten it ({FLAG} prompt_tokens)",
            param=param,
            code="context_length_exceeded",
        )


def allowed(most: float, name: str) -> str:
    """What is said of a limit."""
    return f"allowed: at most {most:.15g} ({FLAG} {name})"


def _has(size: float, unit: str) -> str:
    return f"has {size} {unit}" if unit else f"is {size:.15g}"


def _sizes(fields: SamplingFields) -> Iterator[tuple[str, float, str, str]]:
    """Of each field: its name, how large it is, in which unit, and the limit's name."""
    if fields.n is not None:
        yield "n", fields.n, "", "n"
    if fields.deadline_s is not None:
        yield "deadline_s", fields.deadline_s, "", "deadline_s"
    stops = fields.stop_strings
    yield "stop", len(stops), "strings", "stop_strings"
    for index, stop in enumerate(stops):
        param = "stop" if isinstance(fields.stop, str) else f"stop[{index}]"
        yield param, len(stop), "characters", "stop_chars"
    for name in _LISTS:
        if (values := getattr(fields, name)) is not None:
            yield name, len(values), "entries", name
    for index, word in enumerate(fields.bad_words or ()):
        yield f"bad_words[{index}]", len(word), "characters", "bad_word_chars"
    for param in ("top_logprobs", "logprobs", "prompt_logprobs"):
        value = getattr(fields, param, None)
        if isinstance(value, int) and not isinstance(value, bool):
            yield param, value, "", "logprobs"
    if (tools := getattr(fields, "tools", None)) is not None:
        yield "tools", len(tools), "tools", "tools"
    if (functions := getattr(fields, "functions", None)) is not None:
        yield "functions", len(functions), "functions", "tools"
    yield from _choice_texts(fields)
    yield from _labels(fields)


def _choice_texts(fields: SamplingFields) -> Iterator[tuple[str, float, str, str]]:
    outputs = fields.structured_outputs
    if outputs is not None and outputs.choice is not None:
        yield "structured_outputs.choice", len(outputs.choice), "texts", "grammar_choices"
    if isinstance(fields.guided_choice, list):
        yield "guided_choice", len(fields.guided_choice), "texts", "grammar_choices"


def _labels(fields: SamplingFields) -> Iterator[tuple[str, float, str, str]]:
    for name in _LABELS:
        value: str | None = getattr(fields, name)
        if value is not None:
            yield name, len(value.encode(errors="replace")), "bytes", "label_bytes"
    metadata = fields.metadata
    if metadata is None:
        return
    yield "metadata", len(metadata), "pairs", "metadata_pairs"
    yield "metadata", max(map(len, metadata), default=0), "characters in a key", _KEY
    longest = max((_num_chars(value) for value in metadata.values()), default=0)
    yield "metadata", longest, "characters in a value", _VALUE


def _num_chars(value: Any) -> int:
    return len(value) if isinstance(value, str) else len(msgspec.json.encode(value))


_KEY, _VALUE = "metadata_key_chars", "metadata_value_chars"
