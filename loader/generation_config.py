"""`generation_config.json`: sampling where a request is silent, and the end tokens."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from leadline.loader.errors import ConfigFileError
from leadline.loader.json_files import read_json_object

# Settings that would change the text, and the values that leave it alone (as null does).
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "encoder_repetition_penalty": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "exponential_decay_length_penalty": (),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "guidance_scale": (1.0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "no_repeat_ngram_size": (0,),
    "num_beams": (1,),
    "sequence_bias": ({},),
    "suppress_tokens": ([],),
    "top_h": (),
    "typical_p": (1.0,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """Sampling defaults.

    Attributes:
        temperature: 0 is greedy.
        top_k: 0 keeps all tokens.
        repetition_penalty: above 0; 1 is none.
        eos_token_ids: the model's end tokens, from all of its files.
        not_honoured: settings, as `name=value`, that this server does not have.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    eos_token_ids: tuple[int, ...] = ()
    not_honoured: tuple[str, ...] = ()


def read_generation_config(
    directory: Path, *, other_eos_ids: Iterable[int | None] = ()
) -> GenerationConfig:
    """Read a checkpoint's generation_config.json; without the file, the neutral defaults.

    Args:
        directory: of the checkpoint.
        other_eos_ids: end tokens that config.json and the tokenizer name.

    Raises:
        ConfigFileError: malformed, or values out of range; all are listed.
    """
    path = directory / "generation_config.json"
    raw = read_json_object(path, ConfigFileError) if path.exists() else {}
    problems: list[str] = []
    temperature = _number(raw, "temperature", 1.0, 0.0, None, problems)
    top_p = _number(raw, "top_p", 1.0, 0.0, 1.0, problems)
    min_p = _number(raw, "min_p", 0.0, 0.0, 1.0, problems)
    repetition_penalty = _number(raw, "repetition_penalty", 1.0, 0.0, None, problems)
    if top_p == 0:
        problems.append("top_p is 0; allowed: greater than 0, up to 1")
    if repetition_penalty == 0:
        problems.append("repetition_penalty is 0; allowed: greater than 0")
    top_k = 0 if raw.get("top_k") is None else raw["top_k"]
    if not _is_integer(top_k) or top_k < -1:
        problems.append(f"top_k is {top_k!r}; allowed: an integer of at least 0, or -1 for all")
        top_k = 0
    eos = raw.get("eos_token_id")
    own_eos_ids = eos if isinstance(eos, list) else [eos]
    if not all(_is_token_id(token_id) for token_id in own_eos_ids if token_id is not None):
        problems.append(f"eos_token_id is {eos!r}; allowed: a token id or a list of token ids")
        own_eos_ids = []
    do_sample = raw.get("do_sample")
    if do_sample is not None and not isinstance(do_sample, bool):
        problems.append(f"do_sample is {do_sample!r}; allowed: true or false")
    if problems:
        raise ConfigFileError(f"{path}: {'; '.join(problems)}")
    return GenerationConfig(
        temperature=0.0 if do_sample is False else temperature,
        top_p=top_p,
        top_k=max(top_k, 0),
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        eos_token_ids=_union([*other_eos_ids, *own_eos_ids]),
        not_honoured=tuple(
            f"{name}={raw[name]}"
            for name, neutral in _NEUTRAL.items()
            if raw.get(name) is not None and raw[name] not in neutral
        ),
    )


def _number(
    raw: dict[str, Any],
    name: str,
    default: float,
    low: float,
    high: float | None,
    problems: list[str],
) -> float:
    value = raw.get(name)
    if value is None:
        return default
    allowed = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= (sys.float_info.max if high is None else high):
        problems.append(f"{name} is {value!r}; allowed: {allowed}")
        return default
    return float(value)


def _is_token_id(value: Any) -> bool:
    return _is_integer(value) and value >= 0


def _is_integer(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _union(token_ids: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(sorted({token_id for token_id in token_ids if token_id is not None}))
