"""Fields that clients know and this server does not act on: a hint, or refused by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from leadline.server.errors import unsupported

IsHarmless = Callable[[Any], bool]
"""Whether a value of a field that is not honoured asks for nothing."""


@dataclass(frozen=True, slots=True)
class Only:
    """Harmless if it equals one of these.

    Attributes:
        values: null among them.
    """

    values: tuple[Any, ...]

    def __call__(self, value: Any) -> bool:
        """Whether it does."""
        return any(_is_same(value, other) for other in self.values)


def _is_same(value: Any, other: Any) -> bool:
    """As JSON has it, where 0 is not false."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


@dataclass(frozen=True, slots=True)
class AnyValue:
    """Harmless: a hint by definition; asks for nothing."""

    def __call__(self, value: Any) -> bool:
        """It is."""
        return True


def only(*values: Any) -> IsHarmless:
    """Harmless if it equals one of these, or is null or empty."""
    return Only((None, *values, [], {}))


ANY_VALUE: IsHarmless = AnyValue()
ABSENT: IsHarmless = Only((None,))
"""Of a field that asks for something even if it is empty."""

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
    "structural_tag": only(),
    "stop_regex": only(""),
    "repetition_detection": only(),
    "watermarking": only(False),
    "watermark": only(False),
    "custom_logit_processor": only(),
    "custom_params": only(),
    "vllm_xargs": only(),
    "guided_whitespace_pattern": only(),
    "guided_decoding_backend": only(),
    # Output
    "suffix": only(""),
    "detokenize": only(True),
    "logprob_token_ids": only(),
    "stream_interval": only(1),
    "return_prompt_text": only(False),
    "return_token_offsets": only(False),
    "return_sampling_mask": only(False),
    "return_weight_versions": only(False),
    "return_hidden_states": only(False),
    "return_routed_experts": only(False),
    "spaces_between_special_tokens": only(True),
    "kv_transfer_params": only(),
    "ec_transfer_params": only(),
    "extra_key": only(""),
    "lora_path": only(),
    "session_params": only(),
}
"""Of both kinds of completions."""


def refuse_not_honoured(
    fields: BaseModel,
    not_honoured: Mapping[str, IsHarmless],
    advice: Mapping[str, str] | None = None,
) -> None:
    """Refuse the first field that asks for what this server does not do.

    Args:
        fields: the request; none of these is a field of its class.
        not_honoured: by name.
        advice: what to do about some of them, if it is not to leave them out.

    Raises:
        BadRequestError: names the field.
    """
    for name, value in (fields.model_extra or {}).items():
        if name in not_honoured and not not_honoured[name](value):
            raise unsupported(name, (advice or {}).get(name, "leave it out"))
