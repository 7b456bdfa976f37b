"""`generation_config.json`: sampling where a request is silent, and the end tokens."""

import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from leadline.loader.errors import ConfigFileError
from leadline.loader.json_files import read_json_object

FILE_NAME = "generation_config.json"
AUTO, NONE = "auto", "none"
OVERRIDE_FLAG = "--override-generation-config"
SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "max_new_tokens",
    "do_sample",
    "eos_token_id",
)
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
        max_new_tokens: most tokens of an answer where a request sets no limit; None for no limit.
        eos_token_ids: the model's end tokens, from all of its files.
        not_honoured: settings, as `name=value`, that this server does not have.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    not_honoured: tuple[str, ...] = ()


def read_generation_config(
    directory: Path,
    *,
    other_eos_ids: Iterable[int | None] = (),
    source: str = AUTO,
    overrides: Mapping[str, Any] = types.MappingProxyType({}),
) -> GenerationConfig:
    """Read a checkpoint's generation_config.json; without the file, the neutral defaults.

    Args:
        directory: of the checkpoint.
        other_eos_ids: end tokens that config.json and the tokenizer name.
        source: another file, or a directory that holds one; `auto` for the checkpoint's own,
            `none` for its end tokens alone.
        overrides: settings that win over the file's.

    Raises:
        ConfigFileError: malformed, or values out of range; all are listed.
    """
    path = _path_of(source, directory)
    raw = read_json_object(path, ConfigFileError) if path.exists() else {}
    if source == NONE:
        raw = {name: raw[name] for name in ("eos_token_id",) if name in raw}
    own = _parse(raw, str(path), other_eos_ids)
    if not overrides:
        return own
    for name in overrides:
        if name not in SETTINGS:
            raise ConfigFileError(
                f"{OVERRIDE_FLAG}: there is no setting {name[:80]!r}; allowed: "
                f"{', '.join(SETTINGS)}"
            )
    _parse(overrides, OVERRIDE_FLAG, ())  # so that what is wrong there is said to be there
    return _parse({**raw, **overrides}, str(path), other_eos_ids)


def _path_of(source: str, directory: Path) -> Path:
    """The file that a source means.

    Raises:
        ConfigFileError: it is neither a file nor a directory that has one.
    """
    if source in (AUTO, NONE):
        return directory / FILE_NAME
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / FILE_NAME
    if not path.is_file():
        raise ConfigFileError(
            f"--generation-config: there is no file {path}; allowed: {AUTO}, {NONE}, a file, or a "
            f"directory that holds {FILE_NAME}"
        )
    return path


def _parse(
    raw: Mapping[str, Any], origin: str, other_eos_ids: Iterable[int | None]
) -> GenerationConfig:
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
    max_new_tokens = raw.get("max_new_tokens")
    if max_new_tokens is not None and (not _is_integer(max_new_tokens) or max_new_tokens < 1):
        problems.append(f"max_new_tokens is {max_new_tokens!r}; allowed: an integer from 1 on")
    eos = raw.get("eos_token_id")
    own_eos_ids = eos if isinstance(eos, list) else [eos]
    if not all(_is_token_id(token_id) for token_id in own_eos_ids if token_id is not None):
        problems.append(f"eos_token_id is {eos!r}; allowed: a token id or a list of token ids")
        own_eos_ids = []
    do_sample = raw.get("do_sample")
    if do_sample is not None and not isinstance(do_sample, bool):
        problems.append(f"do_sample is {do_sample!r}; allowed: true or false")
    if problems:
        raise ConfigFileError(f"{origin}: {'; '.join(problems)}")
    return GenerationConfig(
        temperature=0.0 if do_sample is False else temperature,
        top_p=top_p,
        top_k=max(top_k, 0),
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max_new_tokens,
        eos_token_ids=_union([*other_eos_ids, *own_eos_ids]),
        not_honoured=tuple(
            f"{name}={raw[name]}"
            for name, neutral in _NEUTRAL.items()
            if raw.get(name) is not None and raw[name] not in neutral
        ),
    )


def _number(
    raw: Mapping[str, Any],
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
