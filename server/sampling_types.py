"""The fields that chat and text completions share; how much of each: `field_limits.py`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.engine.request import Grammar
from leadline.server.errors import invalid
from leadline.server.not_honoured import NOT_HONOURED, IsHarmless, refuse_not_honoured
from leadline.server.structured_output import (
    OUTPUT_ALIASES,
    ResponseFormat,
    StructuredOutputs,
    grammar_of,
    structured_outputs_of,
)
from leadline.server.unknown_fields import unknown_fields

MAX_PRIORITY = 2**31 - 1
INT64_MAX = 2**63 - 1
_TOKEN_ID_MAX = 2**31 - 1

StopString = Annotated[str, Field(min_length=1)]
BadWord = Annotated[str, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, le=_TOKEN_ID_MAX)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
NumLogprobs = Annotated[int, Field(ge=0, le=_TOKEN_ID_MAX)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
TopK = Annotated[int, Field(ge=-1, le=_TOKEN_ID_MAX)]

FURTHER_FIELDS = (
    "seed",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "bad_words",
    "allowed_token_ids",
    "min_tokens",
    "stop_token_ids",
    "ignore_eos",
    "priority",
    "deadline_s",
    "speculative_tokens",
    "cache_salt",
)
"""What responses and messages take beyond their APIs; chat completions validate it."""


class StreamOptions(BaseModel):
    """What a stream carries beside the text; padding against eavesdroppers is not among it."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: Literal[False] | None = None


class SamplingFields(BaseModel):
    """How tokens are chosen, when to stop, and how the answer is sent; null means the default.

    Attributes:
        truncate_prompt_tokens: most tokens of a prompt; the rest is cut off, on the left unless
            `truncation_side` says otherwise. -1 is as many as the model has room for.
        request_id: the answer's id, after its prefix.
        rid: the answer's id.
        no_stop_trim: SGLang's name of `include_stop_str_in_output`.
        regex, ebnf, json_schema: SGLang's names of `structured_outputs` with one of its fields.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = NOT_HONOURED

    model: str
    # How tokens are chosen
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: TopK | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=INT64_MAX)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    logit_bias: dict[str, Bias] | None = None
    bad_words: list[BadWord] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    regex: Any = None
    ebnf: Any = None
    json_schema: Any = None
    thinking_token_budget: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    # When to stop
    n: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    stop: StopString | list[StopString] | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    no_stop_trim: bool | None = None
    # What is read of the prompt
    truncate_prompt_tokens: Literal[-1] | Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    # What is answered, and how
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: NumLogprobs | None = None
    return_token_ids: bool | None = None
    return_draft_flags: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    skip_special_tokens: bool | None = None
    # How the engine treats it
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    speculative_tokens: Annotated[int, Field(ge=0, le=_TOKEN_ID_MAX)] | None = None
    cache_salt: str | None = None
    user_id: str | None = None  # DeepSeek's: cached pages are its own, as with a salt
    request_id: Annotated[str, Field(min_length=1)] | None = None
    rid: Annotated[str, Field(min_length=1)] | None = None
    # Labels, which change no answer; metadata is told again with it
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def stop_strings(self) -> list[str]:
        """`stop`, always as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def output_limit(self) -> int | None:
        """Most tokens to generate, where the request says so; 0 to score the prompt alone."""
        return self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """How many of the likeliest tokens are told with each output token; None for none."""
        return None

    @property
    def num_prompt_logprobs(self) -> int | None:
        """The same for prompt tokens."""
        return self.prompt_logprobs

    @property
    def has_echo(self) -> bool:
        """Whether choices begin with the prompt."""
        return False

    @property
    def includes_stop(self) -> bool:
        """Whether what ends the text is part of it."""
        return bool(self.include_stop_str_in_output or self.no_stop_trim)

    @property
    def has_functions(self) -> bool:
        """Whether calls are told in OpenAI's older form."""
        return False

    @property
    def hides_reasoning(self) -> bool:
        """Whether the answer leaves out what the model thinks."""
        return False

    @property
    def thinking_budget(self) -> int | None:
        """Most tokens of thinking, where the request says so."""
        return self.thinking_token_budget

    @property
    def thinking_param(self) -> str | None:
        """The field that asks for less thinking or more; None if none does."""
        return None if self.thinking_token_budget is None else "thinking_token_budget"

    @property
    def prompt_param(self) -> str:
        """The field that holds the prompt."""
        return "prompt"

    def response_id(self, prefix: str) -> str | None:
        """The answer's id, if the request says it."""
        return self.rid if self.request_id is None else f"{prefix}{self.request_id}"

    def grammar(self) -> Grammar | None:
        """What the answer must match; None if nothing is asked of it.

        Raises:
            BadRequestError: as `structured_outputs_of` and `grammar_of`.
        """
        guided = {name: getattr(self, name) for name in OUTPUT_ALIASES}
        given = {name: value for name, value in guided.items() if value is not None}
        structured_outputs = self.structured_outputs
        if given:
            structured_outputs = structured_outputs_of(structured_outputs, given)
        if self.response_format is None and structured_outputs is None:
            return None
        return grammar_of(self.response_format, structured_outputs)

    def check(self) -> list[str]:
        """Look at the fields that are not honoured, and at fields that belong together.

        Returns:
            Names of fields that nobody knows.

        Raises:
            BadRequestError: a known field asks for what this server does not do.
        """
        refuse_not_honoured(self, self.not_honoured)
        if self.truncation_side is not None and self.truncate_prompt_tokens is None:
            raise invalid(
                "truncation_side",
                "'truncation_side' is only allowed with 'truncate_prompt_tokens'",
            )
        if self.request_id is not None and self.rid is not None:
            raise invalid("rid", "'rid' and 'request_id' both name the answer; give one of them")
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "'stream_options' is only allowed if 'stream' is true")
        if self.prompt_logprobs is not None and self.stream:
            raise invalid("prompt_logprobs", "'prompt_logprobs' is only allowed without 'stream'")
        if self.return_draft_flags and not self.stream:
            raise invalid(
                "return_draft_flags", "'return_draft_flags' is only allowed if 'stream' is true"
            )
        return unknown_fields(self)
