"""`GET /v1/models` in Anthropic's shape."""

from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import QueryParams

from leadline.server.errors import BadRequestError, invalid
from leadline.server.state import ServerState

MAX_LIMIT = 1000
_DEFAULT_LIMIT = 20


def model_info(state: ServerState, name: str) -> dict[str, Any]:
    """What is told of a name under which the model is served."""
    created = datetime.fromtimestamp(state.created_s, UTC).isoformat().replace("+00:00", "Z")
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "lifecycle": "active",
        "max_input_tokens": state.max_model_len,
        "max_tokens": state.max_model_len - 1,
    }


def model_page(state: ServerState, query: QueryParams) -> dict[str, Any]:
    """A page of names: those after `after_id`, or before `before_id`; at most `limit`.

    Raises:
        BadRequestError: a limit out of range, an id that is none, or both ids.
    """
    names, limit = list(state.model_names), _limit(query)
    after_id, before_id = query.get("after_id"), query.get("before_id")
    if after_id is not None and before_id is not None:
        raise invalid("before_id", "give 'after_id' or 'before_id'")
    stages = query.getlist("lifecycle[]") + query.getlist("lifecycle")
    if stages and "active" not in stages:
        names = []
    elif after_id is not None:
        names = names[_place(names, after_id, "after_id") + 1 :]
    elif before_id is not None:
        names = names[: _place(names, before_id, "before_id")]
    page = names[-limit:] if before_id is not None else names[:limit]
    return {
        "data": [model_info(state, name) for name in page],
        "has_more": len(names) > len(page),
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }


def _limit(query: QueryParams) -> int:
    text = query.get("limit", str(_DEFAULT_LIMIT))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= MAX_LIMIT):
        raise invalid("limit", f"'limit' is {text[:40]!r}; allowed: 1 to {MAX_LIMIT}")
    return int(text)


def _place(names: list[str], name: str, param: str) -> int:
    if name not in names:
        message = f"'{param}' is {name[:200]!r}; allowed: one of {', '.join(names)}"
        raise BadRequestError(message, param=param, code="invalid_value")
    return names.index(name)
