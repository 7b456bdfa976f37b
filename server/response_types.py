"""What the API answers where it does not stream; what was not asked for is left out."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

FinishReason = Literal["stop", "length", "tool_calls"]
Json = dict[str, Any]


class ToolCallFunction(msgspec.Struct, kw_only=True):
    """What a call calls; the arguments are as the model has written them."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, kw_only=True):
    """A tool call."""

    id: str
    type: Literal["function"] = "function"
    function: ToolCallFunction


class ChatMessage(msgspec.Struct, kw_only=True):
    """The assistant's answer.

    Attributes:
        content: null if there are calls and nothing else.
        reasoning_content: DeepSeek's name of it; some clients know it as `reasoning` instead.
        function_call: the call, where the request has `functions` instead of `tools`.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: ToolCallFunction | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    """One answer.

    Attributes:
        stop_reason: the stop string that ended it, or the token that the request names.
        matched_stop: the same, under SGLang's name.
    """

    index: int
    message: ChatMessage
    logprobs: Json | None
    finish_reason: FinishReason | Literal["function_call"]
    stop_reason: str | int | None
    matched_stop: str | int | None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(msgspec.Struct, kw_only=True):
    """The answer of `POST /v1/chat/completions`.

    Attributes:
        usage: see `Usage.to_json`.
        seed: the request's, or the one that was drawn: the same request with it gives this answer.
        system_fingerprint: stands for the model and the version of the server.
        metadata: the request's.
        metrics: see `Usage.metrics`.
    """

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Json
    seed: int
    system_fingerprint: str
    service_tier: Literal["default"] = "default"
    metadata: Json | UnsetType = UNSET
    prompt_logprobs: list[Json | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    metrics: Json | UnsetType = UNSET


class TextChoice(msgspec.Struct, kw_only=True):
    """One continuation; `stop_reason` as in `ChatChoice`."""

    index: int
    text: str
    logprobs: Json | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    matched_stop: str | int | None
    token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[Json | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class TextCompletion(msgspec.Struct, kw_only=True):
    """The answer of `POST /v1/completions`; fields as in `ChatCompletion`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Json
    seed: int
    system_fingerprint: str
    service_tier: Literal["default"] = "default"
    metadata: Json | UnsetType = UNSET
    metrics: Json | UnsetType = UNSET


class Model(msgspec.Struct, kw_only=True):
    """A name under which the model is served.

    Attributes:
        max_model_len: most tokens (prompt and output) of one request.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "leadline"
    max_model_len: int


class ModelList(msgspec.Struct, kw_only=True):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[Model]


class DroppedPages(msgspec.Struct, kw_only=True):
    """The answer of `POST /reset_prefix_cache`: how many cached pages were dropped."""

    num_pages: int


class Aborted(msgspec.Struct, kw_only=True):
    """The answer of `POST /abort_requests`: the ids of the answers that were cut short."""

    request_ids: list[str]


class PauseAnswer(msgspec.Struct, kw_only=True):
    """The answer of `POST /pause` and `POST /resume`.

    Attributes:
        status: `resumed` after `POST /pause` too, if somebody resumed before the pause began.
    """

    status: Literal["paused", "resumed"]


class PauseState(msgspec.Struct, kw_only=True):
    """The answer of `GET /is_paused`."""

    is_paused: bool


class SleepAnswer(msgspec.Struct, kw_only=True):
    """The answer of `POST /sleep` and `POST /wake_up`.

    Attributes:
        status: `awake` after `POST /sleep` too, if somebody resumed before the engine was paused.
        freed_bytes: memory that was given up.
    """

    status: Literal["asleep", "awake"]
    freed_bytes: int = 0


class SleepState(msgspec.Struct, kw_only=True):
    """The answer of `GET /is_sleeping`; level 0 for not at all."""

    is_sleeping: bool
    level: int


class Version(msgspec.Struct, kw_only=True):
    """The answer of `GET /version`."""

    version: str
