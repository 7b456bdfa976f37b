"""Fields that clients know and this server does not act on: a hint, or refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

IsHarmless = Callable[[Any], bool]
"""Whether a value of a field that is not honoured asks for nothing."""


def only(*values: Any) -> IsHarmless:
    """Harmless if it equals one of these, or is null or empty."""
    return lambda value: value in (None, *values) or value == [] or value == {}


ANY_VALUE: IsHarmless = lambda value: True  # noqa: E731 - a hint by definition; asks for nothing

NOT_HONOURED: Mapping[str, IsHarmless] = {
    # What clients send to every server; labels and hints that change no answer.
    "prompt_cache_retention": ANY_VALUE,
    "service_tier": only("auto", "default"),
    "store": only(False),
    # Sampling
    "length_penalty": only(1),
    "best_of": only(1),
    "use_beam_search": only(False),
    "logits_processors": only(),
    "guided_whitespace_pattern": only(),
    "guided_decoding_backend": only(),
    # Output
    "suffix": only(""),
    "spaces_between_special_tokens": only(True),
    "truncate_prompt_tokens": only(),
    "kv_transfer_params": only(),
}
"""Of both kinds of completions."""
