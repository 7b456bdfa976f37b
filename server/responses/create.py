"""`POST /v1/responses` and `POST /v1/responses/input_tokens`."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import ASGIApp

from leadline.server.caller import caller_of
from leadline.server.chat import generation_of, render
from leadline.server.chat_types import ChatRequest
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import ApiError
from leadline.server.prompts import encode_text
from leadline.server.requests import read_fields
from leadline.server.responses.field_names import renamed
from leadline.server.responses.request import InputTokensRequest, ResponseRequest
from leadline.server.responses.response import Response, begin
from leadline.server.responses.run import ResponseRun
from leadline.server.sse import EventStream
from leadline.server.state import ServerState


class InputTokens(msgspec.Struct, kw_only=True):
    """The answer of `POST /v1/responses/input_tokens`."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


async def create_response(request: Request) -> ASGIApp:
    """Answer a conversation."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    fields, headers = await read_fields(request, ResponseRequest)
    try:
        chat, prompt_ids = await _prompt(state, fields)
        generation = await generation_of(state, chat, prompt_ids, caller, id_prefix="resp_")
    except ApiError as error:
        raise renamed(error) from error

    async def keep(response: Response) -> None:
        pass

    run = ResponseRun(begin(fields, generation, is_stored=False), generation, keep)
    if fields.stream:
        return EventStream(
            run.frames(),
            headers=headers,
            keep_alive_s=state.keep_alive_s,
            on_error=run.failure,
        )
    response = await run_until_disconnect(request.receive, run.whole())
    return HttpResponse(
        msgspec.json.encode(response), headers=headers, media_type="application/json"
    )


async def count_input_tokens(request: Request) -> HttpResponse:
    """How many tokens a conversation has as a prompt."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, InputTokensRequest)
    try:
        _, prompt_ids = await _prompt(state, fields)
    except ApiError as error:
        raise renamed(error) from error
    body = msgspec.json.encode(InputTokens(input_tokens=len(prompt_ids)))
    return HttpResponse(body, headers=headers, media_type="application/json")


async def _prompt(state: ServerState, fields: InputTokensRequest) -> tuple[ChatRequest, list[int]]:
    """The chat request that asks for the same, and its prompt."""
    chat = fields.chat(fields.model or state.model_names[0])
    return chat, await encode_text(state, await render(state, chat), "messages")
