"""`thinking` and the effort: what comes in, and the signatures of thinking that goes out."""

import base64
import binascii
import hashlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.chat_types import TEMPLATE_SETTINGS
from leadline.server.sampling_types import INT64_MAX
from leadline.server.thinking import EFFORT_BUDGETS

MIN_BUDGET_TOKENS = 1024
Effort = Literal["low", "medium", "high", "xhigh", "max"]
Display = Literal["summarized", "omitted"]
_CARRIED = "text:"


class ThinkingEnabled(BaseModel):
    """The model thinks first, for at most so many tokens."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=MIN_BUDGET_TOKENS, le=INT64_MAX)]
    display: Display | None = None


class ThinkingAdaptive(BaseModel):
    """The model thinks as long as it likes, within what the effort allows."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["adaptive"]
    display: Display | None = None


class ThinkingDisabled(BaseModel):
    """The model answers at once."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["disabled"]


Thinking = Annotated[
    ThinkingEnabled | ThinkingAdaptive | ThinkingDisabled, Field(discriminator="type")
]


def chat_fields(thinking: Thinking | None, effort: Effort | None) -> dict[str, Any]:
    """The fields of a chat request to a model that can think.

    An effort alone leaves it to the template whether the model thinks; a budget beats an effort.
    """
    if isinstance(thinking, ThinkingDisabled):
        return {"reasoning_effort": "none"}
    fields: dict[str, Any] = {}
    if effort is not None:
        fields["thinking_token_budget"] = EFFORT_BUDGETS[effort]
    if isinstance(thinking, ThinkingEnabled):
        fields["thinking_token_budget"] = thinking.budget_tokens
    if thinking is not None:
        fields["chat_template_kwargs"] = dict.fromkeys(TEMPLATE_SETTINGS, True)
    return fields


def is_shown(thinking: Thinking | None) -> bool:
    """Whether the answer has the text of what the model thinks."""
    return (
        isinstance(thinking, ThinkingDisabled)
        or thinking is None
        or (thinking.display != "omitted")
    )


def sign(text: str, *, shown: bool) -> str:
    """The signature of a thinking block: a digest, or the text itself where it is not shown."""
    if shown:
        return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()
    return base64.b64encode((_CARRIED + text).encode()).decode()


def thought(text: str, signature: str) -> str:
    """What the assistant thought, from a block that is sent back.

    Signatures are not held against the text: a conversation may have begun elsewhere.
    """
    if text:
        return text
    try:
        carried = base64.b64decode(signature, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
    return carried.removeprefix(_CARRIED) if carried.startswith(_CARRIED) else ""
