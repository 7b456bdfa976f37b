"""`POST /v1/chat/completions`."""

import asyncio

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from leadline.loader.errors import TemplateError
from leadline.server.answers import Answer, collect
from leadline.server.caller import caller_of
from leadline.server.chat_types import ChatRequest
from leadline.server.chunk_frames import CHAT_FORMAT, ChunkFrames
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import BadRequestError
from leadline.server.generation import Generation
from leadline.server.make_generation import make_generation
from leadline.server.prompts import encode_text
from leadline.server.requests import read_fields
from leadline.server.response_types import ChatChoice, ChatCompletion, ChatMessage
from leadline.server.sse import EventStream
from leadline.server.state import ServerState


def render(state: ServerState, fields: ChatRequest) -> str:
    """The prompt's text.

    Raises:
        BadRequestError: a message that the model's template cannot render.
    """
    if state.template is None:
        raise BadRequestError(
            "this model has no chat template; use /v1/completions", code="no_chat_template"
        )
    messages = [message.for_template(index) for index, message in enumerate(fields.messages)]
    add_generation_prompt = fields.add_generation_prompt is not False
    try:
        return state.template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            **fields.template_settings,
        )
    except TemplateError as error:
        raise BadRequestError(str(error), param="messages", code="invalid_value") from error


async def chat_completions(request: Request) -> ASGIApp:
    """Answer a conversation."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    fields, headers = await read_fields(request, ChatRequest)
    prompt_ids = await encode_text(state, render(state, fields), "messages")
    generation = await make_generation(state, fields, [prompt_ids], caller, id_prefix="chatcmpl")
    if fields.stream:
        frames = ChunkFrames(generation, CHAT_FORMAT, fields.stream_options).frames()
        return EventStream(frames, headers=headers, keep_alive_s=state.keep_alive_s)
    body = await run_until_disconnect(request.receive, _whole(generation))
    return Response(body, headers=headers, media_type="application/json")


async def _whole(generation: Generation) -> bytes:
    answers = await collect(generation)
    if generation.parts.has_prompt_logprobs:  # as many as the prompt is long
        return await asyncio.to_thread(_body, generation, answers)
    return _body(generation, answers)


def _body(generation: Generation, answers: list[Answer]) -> bytes:
    parts, writer = generation.parts, generation.writer
    choices = [
        ChatChoice(
            index=index,
            message=ChatMessage(content=answer.text),
            logprobs=writer.chat(answer.tokens) if parts.has_logprobs else None,
            finish_reason=answer.finish_reason,
            stop_reason=answer.stop_reason,
            token_ids=answer.token_ids if parts.has_token_ids else UNSET,
        )
        for index, answer in enumerate(answers)
    ]
    completion = ChatCompletion(
        id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=choices,
        usage=generation.usage.to_json(),
        seed=generation.seed,
        metrics=generation.usage.metrics() or UNSET,
    )
    if parts.has_prompt_logprobs:
        completion.prompt_logprobs = writer.prompt(generation.prompt_logprobs.get(0, []))
    if parts.has_token_ids:
        completion.prompt_token_ids = generation.prompt_ids_of(0)
    return msgspec.json.encode(completion)
