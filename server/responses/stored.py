"""`/v1/responses/{response_id}`: responses that are kept, and what they have answered."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response as HttpResponse
from starlette.types import ASGIApp

from leadline.server.caller import caller_of
from leadline.server.errors import ApiError, BadRequestError, invalid, unsupported
from leadline.server.responses.event_log import LOST, Replay, event_frame
from leadline.server.responses.records import StoredResponse
from leadline.server.responses.response import ResponseError
from leadline.server.responses.store import ResponseStore
from leadline.server.sse import EventStream
from leadline.server.state import ServerState

_MAX_ITEMS = 100
_MAX_NUMBER = 2**31 - 1  # of events
_DEFAULT_ITEMS = 20
_CANCEL_S = 10.0  # the process that makes it may be busy, or gone
_LOOK_S = 0.05
_LOST = ResponseError("server_error", LOST)


class DeletedResponse(msgspec.Struct, kw_only=True):
    """What is said of a response that is no more."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItems(msgspec.Struct, kw_only=True):
    """A page of the items that a response has answered, those of earlier responses among them."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def get_response(request: Request) -> ASGIApp:
    """A response that is kept, or the events of one that is, or was, streamed in the background."""
    state: ServerState = request.app.state.server
    query = request.query_params
    is_stream, after = _flag(query, "stream"), query.get("starting_after")
    if _flag(query, "include_obfuscation"):
        raise unsupported("include_obfuscation", "no padding is sent; leave it out")
    if after is not None and not is_stream:
        raise invalid("starting_after", "'starting_after' is only allowed if 'stream' is true")
    stored = await find(request)
    if not is_stream:
        return HttpResponse(stored.body, media_type="application/json")
    if stored.log is None:
        raise BadRequestError(
            "only responses that were made with 'background' and 'stream' can be streamed again; "
            "leave out 'stream', and ask for the whole response",
            param="stream",
            code="invalid_value",
        )
    number = -1 if after is None else _number(after, "starting_after", 0, _MAX_NUMBER)
    return replay_stream(state, Replay(state.responses, stored.id, after=number), {})


def replay_stream(state: ServerState, replay: Replay, headers: Mapping[str, str]) -> EventStream:
    """The answer that a reader of a log sends."""
    return EventStream(
        replay.frames(),
        headers=headers,
        keep_alive_s=state.keep_alive_s,
        on_error=replay.failure,
    )


async def delete_response(request: Request) -> HttpResponse:
    """Forget a response; one that still runs is ended."""
    state: ServerState = request.app.state.server
    response_id, owner = _id_of(request), caller_of(request.headers).tenant
    if not await asyncio.to_thread(state.responses.delete, response_id, owner):
        raise _not_found(response_id)
    return _json(DeletedResponse(id=response_id))


async def cancel_response(request: Request) -> HttpResponse:
    """End a response that is made in the background; one that has ended stays as it is."""
    state: ServerState = request.app.state.server
    stored = await find(request)
    if not msgspec.json.decode(stored.body)["background"]:
        raise BadRequestError("Cannot cancel a synchronous response.", param="response_id")
    if not stored.has_ended:
        await asyncio.to_thread(state.responses.request_cancel, stored.id, stored.owner)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_S):
                while not (stored := await find(request)).has_ended:
                    await asyncio.sleep(_LOOK_S)
    return HttpResponse(stored.body, media_type="application/json")


async def list_input_items(request: Request) -> HttpResponse:
    """What a response has answered, item by item, the last first."""
    query = request.query_params
    order, after = query.get("order", "desc"), query.get("after")
    num_items = _number(query.get("limit", str(_DEFAULT_ITEMS)), "limit", 1, _MAX_ITEMS)
    if order not in ("asc", "desc"):
        raise invalid("order", f"'order' is {order[:40]!r}; allowed: 'asc' and 'desc'")
    items: list[dict[str, Any]] = msgspec.json.decode((await find(request)).items)
    if order == "desc":
        items.reverse()
    begin = 0
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise invalid("after", f"'after' is {after[:64]!r}, which is no item of the response")
        begin = places[0] + 1
    page = items[begin : begin + num_items]
    return _json(
        InputItems(
            data=page,
            first_id=page[0]["id"] if page else None,
            last_id=page[-1]["id"] if page else None,
            has_more=begin + num_items < len(items),
        )
    )


async def find(request: Request) -> StoredResponse:
    """The response that a request's path names.

    Raises:
        ApiError: the caller has none of this id.
    """
    state: ServerState = request.app.state.server
    response_id, owner = _id_of(request), caller_of(request.headers).tenant
    stored = await asyncio.to_thread(state.responses.get, response_id, owner)
    if stored is None:
        raise _not_found(response_id)
    return await _without_end(state.responses, stored) if stored.is_lost else stored


async def _without_end(store: ResponseStore, stored: StoredResponse) -> StoredResponse:
    """A response whose process is gone, after that has been said of it."""
    body = msgspec.json.decode(stored.body)
    body["status"], body["error"] = "failed", msgspec.to_builtins(_LOST)
    failed = replace(stored, status="failed", body=msgspec.json.encode(body), is_lost=False)
    await asyncio.to_thread(store.update, failed.id, failed.status, failed.body)
    number = await asyncio.to_thread(store.num_events, failed.id)
    frame = event_frame("response.failed", number, {"response": body})
    await asyncio.to_thread(store.add_events, failed.id, number, [frame])
    await asyncio.to_thread(store.close_log, failed.id)
    return failed


def _flag(query: QueryParams, name: str) -> bool:
    text = query.get(name, "false")
    if text in ("true", "false"):
        return text == "true"
    raise invalid(name, f"'{name}' is {text[:40]!r}; allowed: 'true' and 'false'")


def _number(text: str, name: str, least: int, most: int) -> int:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    if is_number and least <= int(text) <= most:
        return int(text)
    raise invalid(name, f"'{name}' is {text[:40]!r}; allowed: {least} to {most}")


def _id_of(request: Request) -> str:
    response_id: str = request.path_params["response_id"]
    return response_id


def _not_found(response_id: str) -> ApiError:
    return ApiError(
        404,
        f"Response with id '{response_id[:64]}' not found.",
        param="response_id",
        code="not_found",
    )


def _json(content: msgspec.Struct) -> HttpResponse:
    return HttpResponse(msgspec.json.encode(content), media_type="application/json")
