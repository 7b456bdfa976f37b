"""The fields that chat and text completions share, and how a body becomes one of them."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leadline.server.errors import BadRequestError, unsupported

MAX_CHOICES = 128
MAX_STOP_STRINGS = 16
MAX_STOP_CHARS = 1024
MAX_STOP_TOKEN_IDS = 256
MAX_CACHE_SALT_CHARS = 512
_INT64_MAX = 2**63 - 1
_MAX_SHOWN_CHARS = 40
_TOKEN_ID_MAX = 2**31 - 1

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
TokenId = Annotated[int, Field(ge=0, le=_TOKEN_ID_MAX)]

IsHarmless = Callable[[Any], bool]
"""Whether a value of a field that is not honoured asks for nothing."""


def only(*values: Any) -> IsHarmless:
    """Harmless if it equals one of these, or is null or empty."""
    return lambda value: value in (None, *values) or value == [] or value == {}


ANY_VALUE: IsHarmless = lambda value: True  # noqa: E731 - a hint by definition; asks for nothing

NOT_HONOURED: Mapping[str, IsHarmless] = {
    # What clients send to every server; labels and hints that change no answer.
    "user": ANY_VALUE,
    "metadata": ANY_VALUE,
    "safety_identifier": ANY_VALUE,
    "prompt_cache_key": ANY_VALUE,
    "prompt_cache_retention": ANY_VALUE,
    "service_tier": only("auto", "default"),
    "store": only(False),
    # Sampling
    "frequency_penalty": only(0),
    "presence_penalty": only(0),
    "repetition_penalty": only(1),
    "length_penalty": only(1),
    "logit_bias": only(),
    "bad_words": only(),
    "allowed_token_ids": only(),
    "min_tokens": only(0),
    "best_of": only(1),
    "use_beam_search": only(False),
    "include_stop_str_in_output": only(False),
    "thinking_token_budget": only(),
    "priority": only(0),
    # Output
    "top_logprobs": only(0),
    "prompt_logprobs": only(),
    "echo": only(False),
    "suffix": only(""),
    "skip_special_tokens": only(True),
    "spaces_between_special_tokens": only(True),
    "return_token_ids": only(False),
    "return_tokens_as_token_ids": only(False),
    "structured_outputs": only(),
    "guided_json": only(),
    "guided_regex": only(),
    "guided_choice": only(),
    "guided_grammar": only(),
    "truncate_prompt_tokens": only(),
    "logits_processors": only(),
    "kv_transfer_params": only(),
    "response_format": only({"type": "text"}),
}


class StreamOptions(BaseModel):
    """What a stream carries beside the text; padding against eavesdroppers is not among it."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class SamplingFields(BaseModel):
    """How tokens are chosen, when to stop, and how the answer is sent; null means the default."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = NOT_HONOURED

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=_INT64_MAX)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=_TOKEN_ID_MAX)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=_INT64_MAX)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKEN_IDS)] | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    speculative_tokens: Annotated[int, Field(ge=0, le=_TOKEN_ID_MAX)] | None = None
    cache_salt: Annotated[str, Field(max_length=MAX_CACHE_SALT_CHARS)] | None = None

    @property
    def stop_strings(self) -> list[str]:
        """`stop`, always as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def output_limit(self) -> int | None:
        """Most tokens to generate, where the request says so."""
        return self.max_tokens

    def check(self) -> list[str]:
        """Look at the fields that are not honoured, and at fields that belong together.

        Returns:
            Names of fields that nobody knows.

        Raises:
            BadRequestError: a known field asks for what this server does not do.
        """
        unknown = []
        for name, value in (self.model_extra or {}).items():
            is_harmless = self.not_honoured.get(name)
            if is_harmless is None:
                unknown.append(name)
            elif not is_harmless(value):
                raise unsupported(name, "leave it out")
        if self.stream_options is not None and not self.stream:
            raise BadRequestError(
                "'stream_options' is only allowed when 'stream' is true",
                param="stream_options",
                code="invalid_value",
            )
        if self.stream_options is not None:
            unknown += [f"stream_options.{name}" for name in self.stream_options.model_extra or {}]
        return unknown


Fields = TypeVar("Fields", bound=SamplingFields)


def parse_body(body: bytes, fields: type[Fields]) -> Fields:
    """Validate a request's JSON.

    Raises:
        BadRequestError: it is no JSON, or a field is missing or out of range.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequestError(
            f"the body is not valid JSON: {error}", code="invalid_json"
        ) from error
    if not isinstance(data, dict):
        raise BadRequestError("the body must be a JSON object", code="invalid_json")
    try:
        return fields.model_validate(data)
    except ValidationError as error:
        raise _from_validation(error) from error


def _from_validation(error: ValidationError) -> BadRequestError:
    """What is wrong with the first bad field: of a union, with the branch that fits best."""
    problems = error.errors(include_url=False, include_context=False)
    field = problems[0]["loc"][0]
    problems = [problem for problem in problems if problem["loc"][0] == field]
    # A branch that the value has the type of says more than one that it does not.
    of_right_type = [problem for problem in problems if not problem["type"].endswith("_type")]
    problems = of_right_type or problems
    deepest = max(len(problem["loc"]) for problem in problems)
    problems = [problem for problem in problems if len(problem["loc"]) == deepest]
    problem = problems[0]
    param = _param(problem["loc"])
    if problem["type"] == "missing":
        return BadRequestError(
            f"'{param}' is required", param=param, code="missing_required_parameter"
        )
    wanted = dict.fromkeys(other["msg"] for other in problems)
    return BadRequestError(
        f"'{param}'{_shown(problem['input'])}: {', or '.join(wanted)}",
        param=param,
        code="invalid_value",
    )


def _shown(value: Any) -> str:
    """A value at fault, if it is short."""
    if value is None or isinstance(value, bool | int | float | str):
        text = msgspec.json.encode(value).decode()
        if len(text) <= _MAX_SHOWN_CHARS:
            return f" is {text}"
    return ""


def _param(location: tuple[int | str, ...]) -> str:
    """A field's path, as `messages[0].role`."""
    param = ""
    for part in location:
        if isinstance(part, int):
            param += f"[{part}]"
        elif part.isidentifier() and part != "str":  # the others name the branch of a union
            param += f".{part}" if param else part
    return param
