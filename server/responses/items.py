"""The items of a conversation as they come in: messages, calls, what calls returned, reasoning."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from leadline.server.errors import BadRequestError

# No identifiers, so that a field's path in an error does not name the branch of the union.
_MESSAGE, _CALL, _RESULT, _REASONING = "<message>", "<call>", "<result>", "<reasoning>"
_REFERENCE, _OTHER = "<reference>", "<>"
_TEXT, _REFUSAL = "<text>", "<refusal>"
_ITEM_TAGS = {
    "message": _MESSAGE,
    "function_call": _CALL,
    "function_call_output": _RESULT,
    "reasoning": _REASONING,
    "item_reference": _REFERENCE,
}
_PART_TAGS = {"input_text": _TEXT, "output_text": _TEXT, "refusal": _REFUSAL}
_READABLE = "'message', 'function_call', 'function_call_output', 'reasoning' and 'item_reference'"


class _Item(BaseModel):
    """What items have in common: labels of where they come from, which change nothing."""

    model_config = ConfigDict(strict=True, extra="allow")
    further_fields: ClassVar[frozenset[str]] = frozenset(
        ("phase", "caller", "namespace", "internal_chat_message_metadata_passthrough")
    )

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    further_fields: ClassVar[frozenset[str]] = frozenset(("annotations", "logprobs"))


class TextPart(_Part):
    """Text of a message."""

    type: Literal["input_text", "output_text"]
    text: str


class RefusalPart(_Part):
    """What an assistant has said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


class OtherPart(_Part):
    """A part that the model cannot read."""

    type: str


def _part_tag(part: Any) -> str:
    return _PART_TAGS.get(_type_of(part), _OTHER)


Part = Annotated[
    Annotated[TextPart, Tag(_TEXT)]
    | Annotated[RefusalPart, Tag(_REFUSAL)]
    | Annotated[OtherPart, Tag(_OTHER)],
    Discriminator(_part_tag),
]


class MessageItem(_Item):
    """A turn, or part of one."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]


class CallItem(_Item):
    """A call that the assistant has made; `arguments` is the text of a JSON object."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class ResultItem(_Item):
    """What a call has returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Part]


class ReasoningText(BaseModel):
    """A paragraph of reasoning, or of a summary of it."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(_Item):
    """What the assistant has thought.

    Attributes:
        summary: stands for the reasoning where there is no `content`.
        encrypted_content: only its author can read it; nothing of it reaches the model.
    """

    type: Literal["reasoning"]
    summary: list[ReasoningText] = Field(default_factory=list)
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        """As far as it is known."""
        return "\n\n".join(part.text for part in self.content or self.summary)


class ReferenceItem(BaseModel):
    """Stands for an item of a response that is kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["item_reference"]
    id: str


class OtherItem(_Item):
    """An item that belongs to a tool which this server does not run."""

    type: str

    def refusal(self, param: str) -> BadRequestError:
        """What its sender is told; `param` is where it stands."""
        return BadRequestError(
            f"'{param}.type' is {self.type[:64]!r}, which is not supported by this server; "
            f"allowed: {_READABLE}",
            param=f"{param}.type",
            code="unsupported_content",
        )


def _item_tag(item: Any) -> str:
    if _type_of(item) == "" and _has_role(item):
        return _MESSAGE
    return _ITEM_TAGS.get(_type_of(item), _OTHER)


Item = Annotated[
    Annotated[MessageItem, Tag(_MESSAGE)]
    | Annotated[CallItem, Tag(_CALL)]
    | Annotated[ResultItem, Tag(_RESULT)]
    | Annotated[ReasoningItem, Tag(_REASONING)]
    | Annotated[ReferenceItem, Tag(_REFERENCE)]
    | Annotated[OtherItem, Tag(_OTHER)],
    Discriminator(_item_tag),
]


def _type_of(value: Any) -> str:
    found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return found if isinstance(found, str) else ""


def _has_role(value: Any) -> bool:
    return "role" in value if isinstance(value, dict) else hasattr(value, "role")


def text_of(content: str | list[Part], param: str) -> str:
    """The text of a message or of a result.

    Args:
        content: its parts follow each other as they are.
        param: where it stands.

    Raises:
        BadRequestError: a part is not text.
    """
    if isinstance(content, str):
        return content
    texts = []
    for place, part in enumerate(content):
        match part:
            case TextPart(text=text) | RefusalPart(refusal=text):
                texts.append(text)
            case _:
                where = f"{param}[{place}].type"
                raise BadRequestError(
                    f"'{where}' is {part.type[:64]!r}, but the model reads text only; allowed: "
                    "'input_text' and 'output_text'",
                    param=where,
                    code="unsupported_content",
                )
    return "".join(texts)
