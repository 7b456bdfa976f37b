"""`POST /v1/messages` and `POST /v1/messages/count_tokens`."""

from functools import partial

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from leadline.server.caller import caller_of
from leadline.server.chat import generation_of, render
from leadline.server.chat_types import ChatRequest
from leadline.server.disconnect import run_until_disconnect
from leadline.server.errors import BadRequestError
from leadline.server.messages.envelope import error_event
from leadline.server.messages.frames import PING, MessageFrames
from leadline.server.messages.message import TokenCount, whole_message
from leadline.server.messages.request import CountTokensRequest, MessagesRequest
from leadline.server.prompts import encode_text
from leadline.server.request_id import REQUEST_ID
from leadline.server.requests import read_fields
from leadline.server.sse import EventStream
from leadline.server.state import ServerState


async def create_message(request: Request) -> ASGIApp:
    """Answer a conversation."""
    state: ServerState = request.app.state.server
    caller = caller_of(request.headers)
    fields, headers = await read_fields(request, MessagesRequest)
    chat, prompt_ids = await _prompt(state, fields)
    room = state.max_model_len - len(prompt_ids)
    if room < 1:  # some clients shorten the conversation by themselves at these words
        raise BadRequestError(
            f"prompt is too long: {len(prompt_ids)} tokens > {state.max_model_len - 1} maximum",
            param="messages",
            code="context_length_exceeded",
        )
    chat.max_tokens = min(fields.max_tokens, room)
    generation = await generation_of(state, chat, prompt_ids, caller, id_prefix="msg_")
    shows_thinking, fills_context = fields.shows_thinking, fields.max_tokens > room
    if fields.stream:
        frames = MessageFrames(
            generation, shows_thinking=shows_thinking, fills_context=fills_context
        )
        return EventStream(
            frames.frames(),
            headers=headers,
            keep_alive_s=state.keep_alive_s,
            keep_alive=PING,
            on_error=partial(error_event, request_id=REQUEST_ID.get()),
            offer_writer=frames.take_writer,
        )
    message = await run_until_disconnect(
        request.receive,
        whole_message(generation, shows_thinking=shows_thinking, fills_context=fills_context),
    )
    return Response(msgspec.json.encode(message), headers=headers, media_type="application/json")


async def count_tokens(request: Request) -> Response:
    """How many tokens a conversation has as a prompt."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, CountTokensRequest)
    _, prompt_ids = await _prompt(state, fields)
    body = msgspec.json.encode(TokenCount(len(prompt_ids)))
    return Response(body, headers=headers, media_type="application/json")


async def _prompt(state: ServerState, fields: CountTokensRequest) -> tuple[ChatRequest, list[int]]:
    """The chat request that asks for the same, and its prompt."""
    chat = fields.chat(can_think=state.thinking is not None)
    return chat, await encode_text(state, await render(state, chat), "messages")
