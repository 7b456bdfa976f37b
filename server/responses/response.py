"""The answer of `POST /v1/responses`: what was asked for, how it went, and the items."""

import time
from typing import Any, Literal

import msgspec

from leadline.engine.request import FinishReason
from leadline.server.delta import Delta
from leadline.server.errors import ApiError
from leadline.server.generation import Generation
from leadline.server.responses.output import OutputItem
from leadline.server.responses.request import ResponseRequest
from leadline.server.responses.text_format import TextConfig
from leadline.server.usage import Usage

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]


_ERROR_CODES = {400: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseError(msgspec.Struct):
    """Why a response has failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    """Why an answer breaks off."""

    reason: Literal["max_output_tokens"]


class Response(msgspec.Struct, kw_only=True):
    """One answer; fields of the request are told again, with the defaults where it was silent.

    Attributes:
        created_at: seconds since the epoch, as `completed_at`.
        completed_at: null unless the status is "completed".
        usage: null until the answer has ended.
        seed: the request's, or the one that was drawn: with it the same request has the same
            answer.
    """

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status = "in_progress"
    background: bool
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem] = []
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    seed: int
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: dict[str, Any] | None = None
    user: str | None


def begin(fields: ResponseRequest, generation: Generation, *, is_stored: bool) -> Response:
    """The response before there is any answer."""
    params = generation.requests[0].params
    effort = None if fields.reasoning is None else fields.reasoning.effort
    return Response(
        id=generation.response_id,
        created_at=generation.created_s,
        background=bool(fields.background),
        instructions=fields.instructions,
        max_output_tokens=fields.max_output_tokens,
        max_tool_calls=fields.max_tool_calls,
        metadata=fields.metadata or {},
        model=generation.model,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        previous_response_id=fields.previous_response_id,
        prompt_cache_key=fields.prompt_cache_key,
        reasoning={"effort": effort, "summary": None},
        safety_identifier=fields.safety_identifier,
        seed=generation.seed,
        store=is_stored,
        temperature=params.temperature,
        text=(fields.text or TextConfig()).echo(),
        tool_choice=fields.tool_choice or "auto",
        tools=[tool.echo() for tool in fields.tools or ()],
        top_logprobs=fields.top_logprobs or 0,
        top_p=params.top_p,
        truncation=fields.truncation or "disabled",
        user=fields.user,
    )


def end(response: Response, delta: Delta, generation: Generation) -> None:
    """Say how an answer has ended; `delta` is its last."""
    response.usage = usage_json(generation.usage, generation.state.page_size)
    if delta.finish_reason is FinishReason.LENGTH:
        response.status = "incomplete"
        response.incomplete_details = IncompleteDetails("max_output_tokens")
    else:
        response.status = "completed"
        response.completed_at = int(time.time())


def fail(response: Response, error: ApiError) -> None:
    """Say that there will be no more of an answer."""
    response.status = "failed"
    response.error = ResponseError(_ERROR_CODES.get(error.status, "server_error"), str(error))


def usage_json(usage: Usage, page_size: int) -> dict[str, Any]:
    """The tokens of a response.

    Args:
        usage: as of the last delta.
        page_size: tokens a cache page; 0 if nothing is cached.
    """
    num_output_tokens = sum(usage.num_output_tokens)
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": sum(usage.num_cached_tokens),
            "cache_write_tokens": usage.num_cache_writes(page_size),
        },
        "output_tokens": num_output_tokens,
        "output_tokens_details": {"reasoning_tokens": sum(usage.num_thinking_tokens or ())},
        "total_tokens": usage.num_prompt_tokens + num_output_tokens,
    }
