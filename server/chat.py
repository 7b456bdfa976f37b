"""`POST /v1/chat/completions`."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from leadline.loader.errors import TemplateError
from leadline.server.answers import collect
from leadline.server.chat_types import ChatRequest
from leadline.server.chunk_frames import CHAT_FORMAT, ChunkFrames
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import BadRequestError
from leadline.server.generation import Generation, make_generation
from leadline.server.prompts import encode_text
from leadline.server.requests import read_fields
from leadline.server.response_types import ChatChoice, ChatCompletion, ChatMessage, Usage
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
            **(fields.chat_template_kwargs or {}),
        )
    except TemplateError as error:
        raise BadRequestError(str(error), param="messages", code="invalid_value") from error


async def chat_completions(request: Request) -> ASGIApp:
    """Answer a conversation."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, ChatRequest)
    prompt_ids = await encode_text(state, render(state, fields), "messages")
    generation = make_generation(state, fields, [prompt_ids], id_prefix="chatcmpl")
    if fields.stream:
        frames = ChunkFrames(generation, CHAT_FORMAT, fields.stream_options).frames()
        return EventStream(frames, headers=headers, keep_alive_s=state.keep_alive_s)
    body = await run_until_disconnect(request.receive, _whole(generation))
    return Response(body, headers=headers, media_type="application/json")


async def _whole(generation: Generation) -> str:
    answers = await collect(generation)
    return ChatCompletion(
        id=generation.response_id,
        created=generation.created_s,
        model=generation.model,
        choices=[
            ChatChoice(
                index=index,
                message=ChatMessage(content=answer.text),
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ],
        usage=Usage.model_validate(generation.usage.to_json()),
        seed=generation.seed,
    ).model_dump_json()
