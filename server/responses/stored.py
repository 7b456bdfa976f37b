"""`/v1/responses/{response_id}`: responses that are kept, and what they have answered."""

import asyncio
import contextlib
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response as HttpResponse

from leadline.server.caller import caller_of
from leadline.server.errors import ApiError, BadRequestError, invalid, unsupported
from leadline.server.responses.store import StoredResponse
from leadline.server.state import ServerState

_MAX_ITEMS = 100
_DEFAULT_ITEMS = 20
_CANCEL_S = 10.0  # the process that makes it may be busy, or gone
_LOOK_S = 0.05


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


async def get_response(request: Request) -> HttpResponse:
    """A response that is kept."""
    for name in ("stream", "starting_after"):
        if request.query_params.get(name, "false") != "false":
            raise unsupported(name, "leave it out, and ask for the whole response")
    stored = await find(request)
    return HttpResponse(stored.body, media_type="application/json")


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
    num_items = _num_items(query.get("limit", str(_DEFAULT_ITEMS)))
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
    return stored


def _num_items(text: str) -> int:
    if text.isdecimal() and len(text) <= len(str(_MAX_ITEMS)) and 1 <= int(text) <= _MAX_ITEMS:
        return int(text)
    raise invalid("limit", f"'limit' is {text[:40]!r}; allowed: 1 to {_MAX_ITEMS}")


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
