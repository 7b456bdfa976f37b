"""`POST /inference/v1/generate`: tokens in, tokens out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.types import ASGIApp

from leadline.server.answers import Answer, whole_answer
from leadline.server.caller import caller_of
from leadline.server.delta import Delta
from leadline.server.generate_types import GenerateRequest
from leadline.server.generation import Generation
from leadline.server.json_line import encode_line
from leadline.server.make_generation import make_generation
from leadline.server.prompts import truncated
from leadline.server.requests import read_fields
from leadline.server.response_types import Json
from leadline.server.sampling_types import StreamOptions
from leadline.server.sse import DONE, EventStream
from leadline.server.state import ServerState


class GenerateChoice(msgspec.Struct, kw_only=True):
    """One continuation.

    Attributes:
        token_ids: those that count, the one that ends it included.
        logprobs: as in chat completions, with tokens written as `token_id:5`.
        stop_reason: the stop string that ended it, or the token that the request names.
    """

    index: int
    token_ids: list[int]
    logprobs: Json | None
    finish_reason: Literal["stop", "length"]
    stop_reason: str | int | None


class GenerateAnswer(msgspec.Struct, kw_only=True):
    """The answer of `POST /inference/v1/generate`.

    Attributes:
        request_id: the request's, or a new one.
        usage: see `Usage.to_json`.
        seed: the request's, or the one that was drawn: the same request with it gives this answer.
        prompt_logprobs: by token id; null for the first token.
        metrics: see `Usage.metrics`.
    """

    request_id: str
    created: int
    model: str
    choices: list[GenerateChoice]
    usage: Json
    seed: int
    prompt_logprobs: list[Json | None] | None = None
    metrics: Json | UnsetType = UNSET


async def generate(request: Request) -> ASGIApp:
    """Continue token ids."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    body, headers = await read_fields(request, GenerateRequest)
    fields = body.fields(state.model_names[0])
    prompt_ids = truncated(state, fields, body.token_ids)
    generation = await make_generation(
        state, fields, [prompt_ids], caller, id_prefix="", has_text=bool(fields.stop_strings)
    )
    if fields.stream:
        frames = _frames(generation, fields.stream_options or StreamOptions())
        return EventStream(frames, headers=headers, keep_alive_s=state.keep_alive_s)
    return await whole_answer(request, generation, _body, headers)


def _body(generation: Generation, answers: list[Answer]) -> bytes:
    parts, writer = generation.parts, generation.writer
    body = GenerateAnswer(
        request_id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=[
            GenerateChoice(
                index=index,
                token_ids=answer.token_ids,
                logprobs=writer.chat(answer.tokens) if parts.has_logprobs else None,
                finish_reason="length" if answer.finish_reason == "length" else "stop",
                stop_reason=answer.stop_reason,
            )
            for index, answer in enumerate(answers)
        ],
        usage=generation.usage.to_json(),
        seed=generation.seed,
        metrics=generation.usage.metrics() or UNSET,
    )
    if parts.has_prompt_logprobs:
        body.prompt_logprobs = writer.prompt(generation.prompt_logprobs.get(0, []))
    return msgspec.json.encode(body)


async def _frames(generation: Generation, options: StreamOptions) -> AsyncGenerator[bytes, None]:
    """The whole stream: tokens as they come, the usage if it is asked for.

    Raises:
        ApiError: as `Generation.deltas`.
    """
    head = {"request_id": generation.response_id, "model": generation.model}
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            if delta.tokens or delta.finish_reason is not None:
                chunk: dict[str, Any] = {**head, "choices": [_chunk_choice(generation, delta)]}
                if options.include_usage and options.continuous_usage_stats:
                    chunk["usage"] = generation.usage.to_json()
                yield _frame(chunk)
    if options.include_usage:
        last: dict[str, Any] = {**head, "choices": [], "usage": generation.usage.to_json()}
        if (metrics := generation.usage.metrics()) is not None:
            last["metrics"] = metrics
        yield _frame({**last, "seed": generation.seed})
    yield DONE


def _chunk_choice(generation: Generation, delta: Delta) -> dict[str, Any]:
    has_logprobs = generation.parts.has_logprobs and delta.tokens
    choice = {
        "index": delta.index,
        "token_ids": [token.token_id for token in delta.tokens],
        "logprobs": generation.writer.chat(delta.tokens) if has_logprobs else None,
        "finish_reason": None if delta.finish_reason is None else delta.finish_reason.value,
    }
    return choice if delta.finish_reason is None else {**choice, "stop_reason": delta.stop_reason}


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + encode_line(chunk) + b"\n\n"
