"""From a request of this API to the prompt: the whole conversation, or what fits of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from leadline.server.caller import Caller
from leadline.server.chat import render
from leadline.server.chat_types import ChatRequest
from leadline.server.errors import BadRequestError
from leadline.server.prompts import encode_text
from leadline.server.responses.history import History
from leadline.server.responses.items import CallItem, Item, MessageItem, ResultItem
from leadline.server.responses.request import InputTokensRequest
from leadline.server.state import ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What the model is to go on with.

    Attributes:
        chat: the chat request that asks for the same.
        items: the whole conversation, whatever of it the prompt has.
        token_ids: the prompt.
    """

    chat: ChatRequest
    items: list[Item]
    token_ids: list[int]


async def prompt_of(state: ServerState, fields: InputTokensRequest, caller: Caller) -> Prompt:
    """The prompt of a request.

    With the truncation "auto", the oldest items are left out until it fits, as few as will do.

    Raises:
        ApiError: what is asked for is not here, or cannot be read; by the names of chat
            completions.
    """
    history = History(state.responses, caller.tenant)
    earlier = await history.up_to(fields.previous_response_id)
    items = [*earlier, *await history.resolved(fields.items)]
    model = fields.model or state.model_names[0]

    async def without(dropped: frozenset[int]) -> Prompt:
        kept = [item for place, item in enumerate(items) if place not in dropped]
        chat = fields.chat(model, kept, num_earlier=len(earlier))
        token_ids = await encode_text(state, await render(state, chat), "messages")
        return Prompt(chat=chat, items=items, token_ids=token_ids)

    async def fitting(dropped: frozenset[int]) -> Prompt | None:
        try:
            prompt = await without(dropped)
        except BadRequestError as error:
            if error.code != "context_length_exceeded":
                raise
            return None
        return prompt if _fits(state, prompt) else None

    if fields.truncation != "auto":
        return await without(frozenset())
    if (whole := await fitting(frozenset())) is not None:
        return whole
    groups = _droppable(items)
    too_few, enough = 0, len(groups)
    best = await without(_first(groups, enough))  # if this is too long, its sender is told so
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if (prompt := await fitting(_first(groups, middle))) is None:
            too_few = middle
        else:
            enough, best = middle, prompt
    return best


def _fits(state: ServerState, prompt: Prompt) -> bool:
    """Whether the model has room for the prompt and for the answer."""
    num_tokens, most = len(prompt.token_ids), state.limits.prompt_tokens
    num_wanted = max(prompt.chat.output_limit or 1, 1)
    return num_tokens + num_wanted <= state.max_model_len and not 0 < most < num_tokens


def _droppable(items: Sequence[Item]) -> list[frozenset[int]]:
    """The places of items that may be left out, oldest first; a call goes with what it returned.

    What the system and the developer say stays, and so does the last item.
    """
    groups: dict[str, set[int]] = {}
    for place, item in enumerate(items):
        if isinstance(item, MessageItem) and item.role in ("system", "developer"):
            continue
        name = f"call {item.call_id}" if isinstance(item, CallItem | ResultItem) else str(place)
        groups.setdefault(name, set()).add(place)
    last = len(items) - 1
    return [frozenset(group) for group in groups.values() if last not in group]


def _first(groups: Sequence[frozenset[int]], num: int) -> frozenset[int]:
    return frozenset().union(*groups[:num])
