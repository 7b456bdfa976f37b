"""`POST /v1/responses` and `POST /v1/responses/input_tokens`."""

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import ASGIApp

from leadline.server.caller import caller_of
from leadline.server.chat import generation_of
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import ApiError, unsupported
from leadline.server.limits import FLAG
from leadline.server.requests import read_fields
from leadline.server.responses.background import start
from leadline.server.responses.event_log import Replay
from leadline.server.responses.field_names import renamed
from leadline.server.responses.keeper import Keeper
from leadline.server.responses.prompt import prompt_of
from leadline.server.responses.request import InputTokensRequest, ResponseRequest
from leadline.server.responses.response import begin
from leadline.server.responses.run import ResponseRun
from leadline.server.responses.stored import replay_stream
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
    is_stored = _is_stored(state, fields)
    try:
        prompt = await prompt_of(state, fields, caller)
        generation = await generation_of(
            state, prompt.chat, prompt.token_ids, caller, id_prefix="resp_"
        )
    except ApiError as error:
        raise renamed(error) from error
    keeper = Keeper(state.responses, caller.tenant, prompt.items)
    response = begin(fields, generation, is_stored=is_stored)
    if fields.background:
        run = ResponseRun(response, generation, keeper.update)
        log = await start(state, run, keeper, has_log=bool(fields.stream))
        if log is None:
            return _json(response, headers)
        return replay_stream(state, Replay(state.responses, response.id, news=log.news), headers)
    run = ResponseRun(response, generation, keeper.try_to_add if is_stored else None)
    if fields.stream:
        return EventStream(
            run.frames(),
            headers=headers,
            keep_alive_s=state.keep_alive_s,
            on_error=run.failure,
            offer_writer=run.take_writer,
        )
    return _json(await run_until_disconnect(request.receive, run.whole()), headers)


async def count_input_tokens(request: Request) -> HttpResponse:
    """How many tokens a conversation has as a prompt."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, InputTokensRequest)
    try:
        prompt = await prompt_of(state, fields, caller_of(request.headers))
    except ApiError as error:
        raise renamed(error) from error
    return _json(InputTokens(input_tokens=len(prompt.token_ids)), headers)


def _is_stored(state: ServerState, fields: ResponseRequest) -> bool:
    """Whether a response is to be kept.

    Raises:
        BadRequestError: it must be, and nothing is kept here.
    """
    for name in ("store", "background"):
        if getattr(fields, name) and not state.responses.is_enabled:
            advice = f"nothing is kept here ({FLAG} stored_responses); leave it out"
            raise unsupported(name, advice)
    return fields.store is not False and state.responses.is_enabled


def _json(content: msgspec.Struct, headers: dict[str, str]) -> HttpResponse:
    body = msgspec.json.encode(content)
    return HttpResponse(body, headers=headers, media_type="application/json")
