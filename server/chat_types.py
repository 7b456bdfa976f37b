"""`POST /v1/chat/completions`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import BadRequestError, invalid, unsupported
from leadline.server.not_honoured import ANY_VALUE, NOT_HONOURED, IsHarmless, only
from leadline.server.sampling_types import INT64_MAX, NumLogprobs, SamplingFields
from leadline.server.thinking import EFFORT_BUDGETS, Effort

_ROLES = Literal["system", "developer", "user", "assistant", "tool"]
# What a client may hand to the template; the rest would change what the server itself decides.
TEMPLATE_SETTINGS = ("thinking", "enable_thinking")


class Message(BaseModel):
    """One turn; further fields (`name`, ...) go to the template as they are."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: _ROLES
    content: str | list[dict[str, Any]] | None = None

    def for_template(self, index: int) -> dict[str, Any]:
        """The message as templates read it: the content is one text.

        Args:
            index: its place, for messages of errors.

        Raises:
            BadRequestError: a part is not text, or there is no content.
        """
        message = {**(self.model_extra or {}), "role": self.role}
        if self.role == "developer":
            message["role"] = "system"
        if message.get("tool_calls"):
            raise unsupported(f"messages[{index}].tool_calls", "leave it out")
        if isinstance(self.content, list):
            message["content"] = "".join(
                _text_of(part, f"messages[{index}].content[{place}]")
                for place, part in enumerate(self.content)
            )
        elif self.content is None:
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


class ChatRequest(SamplingFields):
    """A conversation to be continued."""

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "functions": only(),
        "function_call": only("none", "auto"),
        "parallel_tool_calls": ANY_VALUE,
        "modalities": only(["text"]),
        "audio": only(),
        "prediction": only(),
        "web_search_options": only(),
        "echo": only(False),
        "verbosity": only("medium"),
        "thinking": only(),
        "chat_template": only(),
        "documents": only(),
        "continue_final_message": only(False),
        "add_special_tokens": only(False),
        "mm_processor_kwargs": only(),
    }

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None
    reasoning_effort: Effort | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def output_limit(self) -> int | None:
        """`max_completion_tokens`, which wins over its older name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """`top_logprobs` if `logprobs` is asked for."""
        return self.top_logprobs or 0 if self.logprobs else None

    @property
    def thinking_budget(self) -> int | None:
        """`thinking_token_budget`, which wins over what `reasoning_effort` stands for."""
        if self.thinking_token_budget is None and self.reasoning_effort is not None:
            return EFFORT_BUDGETS[self.reasoning_effort]
        return self.thinking_token_budget

    @property
    def thinking_param(self) -> str | None:
        """`thinking_token_budget`, `reasoning_effort` or neither."""
        effort = None if self.reasoning_effort is None else "reasoning_effort"
        return super().thinking_param or effort

    @property
    def prompt_param(self) -> str:
        """The field that holds the prompt."""
        return "messages"

    @property
    def template_settings(self) -> dict[str, Any]:
        """Variables for the template: an effort turns thinking on or off, if nothing else does."""
        settings: dict[str, Any] = {}
        if self.reasoning_effort is not None:
            settings = dict.fromkeys(TEMPLATE_SETTINGS, self.reasoning_effort != "none")
        return settings | (self.chat_template_kwargs or {})

    def check(self) -> list[str]:
        """As `SamplingFields.check`; tool calls are refused too."""
        unknown = super().check()
        if self.tools and self.tool_choice != "none":
            raise unsupported("tools", "leave it out, or set 'tool_choice' to 'none'")
        if self.tool_choice not in (None, "none", "auto"):
            raise unsupported("tool_choice", "leave it out; allowed: 'none', 'auto'")
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "'top_logprobs' is only allowed if 'logprobs' is true")
        for name in self.chat_template_kwargs or {}:
            if name not in TEMPLATE_SETTINGS:
                raise unsupported(
                    f"chat_template_kwargs.{name[:64]}",
                    f"leave it out; allowed: {', '.join(TEMPLATE_SETTINGS)}",
                )
        return unknown
