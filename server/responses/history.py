"""Conversations as they are kept: what a response has answered, item by item, and its own items."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import TypeAdapter

from leadline.server.errors import ApiError, BadRequestError
from leadline.server.responses.items import Item, MessageItem, ReferenceItem
from leadline.server.responses.records import StoredResponse
from leadline.server.responses.store import ResponseStore

_ITEMS: TypeAdapter[list[Item]] = TypeAdapter(list[Item])
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})i?[0-9a-f]{2,}", re.ASCII)  # with its response's name
_PARAM = "previous_response_id"


class History:
    """What one caller's earlier responses have answered and said."""

    def __init__(self, store: ResponseStore, owner: str) -> None:
        """`owner`: the caller."""
        self._store = store
        self._owner = owner
        self._items: dict[str, dict[str, Item]] = {}  # of responses looked up, by their ids

    async def up_to(self, response_id: str | None) -> list[Item]:
        """The conversation that a response has answered, and its answer; none for no id.

        Raises:
            BadRequestError: the caller has no such response, or it has not come to a good end.
        """
        if response_id is None:
            return []
        stored = await asyncio.to_thread(self._store.get, response_id, self._owner)
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
        return _items_of(stored)

    async def resolved(self, items: Sequence[Item]) -> list[Item]:
        """The items, each reference replaced by what it stands for.

        Raises:
            ApiError: the caller has no such item.
        """
        return [
            await self._referred(item.id, place) if isinstance(item, ReferenceItem) else item
            for place, item in enumerate(items)
        ]

    async def _referred(self, item_id: str, place: int) -> Item:
        match = _ITEM_ID.fullmatch(item_id)
        response_id = f"resp_{match[1]}" if match else ""
        if match and response_id not in self._items:
            stored = await asyncio.to_thread(self._store.get, response_id, self._owner)
            found = [] if stored is None else _items_of(stored)
            self._items[response_id] = {str(item.id): item for item in found}
        item = self._items.get(response_id, {}).get(item_id)
        if item is None:
            raise ApiError(
                404,
                f"Item with id '{item_id[:64]}' not found: items are kept with their responses, "
                "unless 'store' is false; send the item itself",
                param=f"input[{place}].id",
                code="not_found",
            )
        return item


def _items_of(stored: StoredResponse) -> list[Item]:
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
