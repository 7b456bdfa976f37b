"""What the API answers where it does not stream."""

from typing import Literal

from pydantic import BaseModel

FinishReason = Literal["stop", "length"]


class PromptTokensDetails(BaseModel):
    """`cached_tokens`: prompt tokens that were taken from the prefix cache."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of a request: each prompt counted once, the tokens of all choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class ChatMessage(BaseModel):
    """The assistant's answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """The answer of `POST /v1/chat/completions`.

    Attributes:
        seed: the request's, or the one that was drawn: the same request with it gives this answer.
    """

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    seed: int


class TextChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: None = None
    finish_reason: FinishReason


class TextCompletion(BaseModel):
    """The answer of `POST /v1/completions`; `seed` as in `ChatCompletion`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    seed: int


class Model(BaseModel):
    """A name under which the model is served.

    Attributes:
        max_model_len: most tokens (prompt and output) of one request.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "leadline"
    max_model_len: int


class ModelList(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[Model]
