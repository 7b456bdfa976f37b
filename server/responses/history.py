"""Conversations as they are kept: what a response has answered, item by item, and its own items."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import TypeAdapter

from leadline.server.errors import BadRequestError
from leadline.server.responses.items import Item, MessageItem
from leadline.server.responses.store import ResponseStore

_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
_PARAM = "previous_response_id"


async def earlier_items(store: ResponseStore, response_id: str | None, owner: str) -> list[Item]:
    """The conversation that a response has answered, and its answer.

    Args:
        store: where it is kept.
        response_id: None for no conversation.
        owner: the caller who wants it.

    Raises:
        BadRequestError: the caller has no such response, or it has not come to a good end.
    """
    if response_id is None:
        return []
    stored = await asyncio.to_thread(store.get, response_id, owner)
    if stored is None:
        raise BadRequestError(
            f"Previous response with id '{response_id[:64]}' not found.",
            param=_PARAM,
            code="previous_response_not_found",
        )
    if stored.status not in ("completed", "incomplete"):
        raise BadRequestError(
            f"'{_PARAM}' is a response whose status is '{stored.status}'; allowed: 'completed' "
            "and 'incomplete'",
            param=_PARAM,
            code="invalid_value",
        )
    items: list[Any] = msgspec.json.decode(stored.items)
    return _ITEMS.validate_python([*items, *msgspec.json.decode(stored.body)["output"]])


def items_json(items: Sequence[Item], response_id: str) -> bytes:
    """A conversation as a JSON list of items, all with ids and with their content in parts.

    Args:
        items: in their order.
        response_id: of the response that answers it; ids of new items come from it.
    """
    name = response_id.partition("_")[2]
    return msgspec.json.encode([_item_json(item, name, n) for n, item in enumerate(items)])


def _item_json(item: Item, name: str, place: int) -> dict[str, Any]:
    shown = item.model_dump(exclude_none=True)
    shown.setdefault("type", "message")
    shown.setdefault("id", f"{_PREFIXES.get(shown['type'], 'item')}_{name}i{place:02x}")
    if isinstance(item, MessageItem):
        shown.setdefault("status", "completed")
        if isinstance(item.content, str):
            kind = "output_text" if item.role == "assistant" else "input_text"
            shown["content"] = [{"type": kind, "text": item.content}]
    return shown
