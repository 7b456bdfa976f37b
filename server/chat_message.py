"""A message of `POST /v1/chat/completions`: what comes in, and what templates see of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from leadline.server.dialects.tool_types import CalledFunction, MessageToolCall
from leadline.server.errors import BadRequestError, invalid

_ROLES = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Message(BaseModel):
    """One turn; further fields (`name`, `tool_call_id`, ...) go to the template as they are.

    Attributes:
        reasoning_content, reasoning: two names of one thing; the template gets both.
        prefix, partial: DeepSeek's and Moonshot's names of `continue_final_message`.
        function_call: a call in OpenAI's older form; a message of the role "function" answers it.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    further_fields: ClassVar[frozenset[str]] = frozenset(
        ("name", "tool_call_id", "refusal", "annotations", "audio")
    )

    role: _ROLES
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    function_call: CalledFunction | None = None
    prefix: bool | None = None
    partial: bool | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether the answer is to go on with this message."""
        return bool(self.prefix or self.partial)

    @property
    def calls(self) -> list[MessageToolCall]:
        """The calls that the message has made, in whichever form; the older one has no ids."""
        if self.function_call is None:
            return self.tool_calls or []
        call = MessageToolCall(id=self.function_call.name, function=self.function_call)
        return [*(self.tool_calls or []), call]

    @property
    def text(self) -> str:
        """The content, where it is text."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""

    def for_template(self, index: int) -> dict[str, Any]:
        """The message as templates read it: the content is one text, or null beside calls.

        Args:
            index: its place, for messages of errors.

        Raises:
            BadRequestError: a part is not text, or there is no content.
        """
        message = {**(self.model_extra or {}), "role": self.role}
        if self.role == "developer":
            message["role"] = "system"
        if self.role == "function":
            message |= {"role": "tool", "tool_call_id": message.get("name") or ""}
        for name in ("reasoning_content", "reasoning"):
            if (reasoning := getattr(self, name)) is not None:
                message[name] = reasoning
        if calls := self.calls:
            if self.role != "assistant":
                param = f"messages[{index}].{'tool_calls' if self.tool_calls else 'function_call'}"
                raise invalid(param, f"'{param}' is only allowed if the role is 'assistant'")
            message["tool_calls"] = [call.for_template() for call in calls]
        if isinstance(self.content, list):
            message["content"] = "".join(
                _text_of(part, f"messages[{index}].content[{place}]")
                for place, part in enumerate(self.content)
            )
        elif self.content is None and not (calls or self.is_prefix):
            raise BadRequestError(
                f"'messages[{index}].content' must be a text or a list of text parts",
                param=f"messages[{index}].content",
                code="missing_required_parameter",
            )
        else:
            message["content"] = self.content
        return message


def _text_of(part: Mapping[str, Any], param: str) -> str:
    kind, text = part.get("type"), part.get("text")
    if kind != "text":
        raise BadRequestError(
            f"'{param}.type' is {str(kind)[:40]!r}, but the model reads text only; allowed: 'text'",
            param=f"{param}.type",
            code="unsupported_content",
        )
    if not isinstance(text, str):
        raise BadRequestError(
            f"'{param}.text' must be a string", param=f"{param}.text", code="invalid_value"
        )
    return text
