"""`POST /v1/chat/completions`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.dialects.tool_types import MessageToolCall, Tool, ToolUse, tool_use_of
from leadline.server.errors import BadRequestError, invalid, unsupported
from leadline.server.not_honoured import NOT_HONOURED, IsHarmless, only
from leadline.server.sampling_types import INT64_MAX, NumLogprobs, SamplingFields
from leadline.server.thinking import EFFORT_BUDGETS, Effort

GUIDED_FIELDS = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
_ROLES = Literal["system", "developer", "user", "assistant", "tool"]
# What a client may hand to the template; the rest would change what the server itself decides.
TEMPLATE_SETTINGS = ("thinking", "enable_thinking")


class Message(BaseModel):
    """One turn; further fields (`name`, `tool_call_id`, ...) go to the template as they are.

    Attributes:
        reasoning_content, reasoning: two names of one thing; the template gets both.
        prefix, partial: DeepSeek's and Moonshot's names of `continue_final_message`.
    """

    model_config = ConfigDict(strict=True, extra="allow")
    further_fields: ClassVar[frozenset[str]] = frozenset(
        ("name", "tool_call_id", "refusal", "annotations", "audio", "function_call")
    )

    role: _ROLES
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    prefix: bool | None = None
    partial: bool | None = None

    @property
    def is_prefix(self) -> bool:
        """Whether the answer is to go on with this message."""
        return bool(self.prefix or self.partial)

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
        for name in ("reasoning_content", "reasoning"):
            if (reasoning := getattr(self, name)) is not None:
                message[name] = reasoning
        if self.tool_calls:
            if self.role != "assistant":
                param = f"messages[{index}].tool_calls"
                raise invalid(param, f"'{param}' is only allowed if the role is 'assistant'")
            message["tool_calls"] = [call.for_template() for call in self.tool_calls]
        if isinstance(self.content, list):
            message["content"] = "".join(
                _text_of(part, f"messages[{index}].content[{place}]")
                for place, part in enumerate(self.content)
            )
        elif self.content is None and not (self.tool_calls or self.is_prefix):
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
    """A conversation to be continued.

    `stop` is looked for in the content of answers, not in their reasoning or tool calls. With the
    `tool_choice` "none" the model is not told of the tools; with "required" or a name, and with a
    function that is `strict`, calls match the schemas of their functions.

    Attributes:
        continue_final_message: the answer goes on with the last message, an assistant's, of which
            it does not repeat anything.
        echo: answers begin with the content of the last message, if it is an assistant's.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "functions": only(),
        "function_call": only("none", "auto"),
        "modalities": only(["text"]),
        "audio": only(),
        "prediction": only(),
        "web_search_options": only(),
        "verbosity": only("medium"),
        "thinking": only(),
        "chat_template": only(),
        "documents": only(),
        "add_special_tokens": only(False),
        "mm_processor_kwargs": only(),
    }

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    logprobs: bool | None = None
    top_logprobs: NumLogprobs | None = None
    reasoning_effort: Effort | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool | None = None
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

    @property
    def continues_final_message(self) -> bool:
        """Whether the answer goes on with the last message."""
        return bool(self.continue_final_message) or self.messages[-1].is_prefix

    @property
    def continues_thinking(self) -> bool:
        """Whether it goes on with what that message thinks."""
        last = self.messages[-1]
        has_thought = bool(last.reasoning_content or last.reasoning)
        return self.continues_final_message and has_thought and not last.text

    @property
    def echoed_text(self) -> str:
        """What answers begin with."""
        last = self.messages[-1]
        return last.text if self.echo and last.role == "assistant" else ""

    @property
    def _format_param(self) -> str | None:
        """The field that says what the answer must match; None if none does."""
        if self.response_format is not None and self.response_format.type != "text":
            return "response_format"
        names = ("structured_outputs", *GUIDED_FIELDS)
        return next((name for name in names if getattr(self, name) is not None), None)

    @property
    def tool_use(self) -> ToolUse | None:
        """What is asked for about tool calls; None if none may be made.

        Raises:
            BadRequestError: as `tool_use_of`.
        """
        return tool_use_of(self.tools, self.tool_choice, self.parallel_tool_calls)

    def check(self) -> list[str]:
        """As `SamplingFields.check`; tools are looked at too."""
        unknown = super().check()
        if self.tool_use is not None and (param := self._format_param) is not None:
            raise invalid(
                param,
                f"'{param}' and 'tools' both say what the answer must match; leave one of them "
                "out, or set 'tool_choice' to 'none'",
            )
        self._check_prefix()
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "'top_logprobs' is only allowed if 'logprobs' is true")
        for name in self.chat_template_kwargs or {}:
            if name not in TEMPLATE_SETTINGS:
                raise unsupported(
                    f"chat_template_kwargs.{name[:64]}",
                    f"leave it out; allowed: {', '.join(TEMPLATE_SETTINGS)}",
                )
        return unknown

    def _check_prefix(self) -> None:
        """Whether the last message, if any, is one that can be continued."""
        last = len(self.messages) - 1
        for index, message in enumerate(self.messages):
            if message.is_prefix and index != last:
                param = f"messages[{index}].{'prefix' if message.prefix else 'partial'}"
                raise invalid(param, f"'{param}' is only allowed in the last message")
        if not self.continues_final_message:
            return
        if self.add_generation_prompt:
            raise invalid(
                "add_generation_prompt",
                "'add_generation_prompt' is true, but the last message is to be continued; leave "
                "one of them out",
            )
        message = self.messages[last]
        if message.role != "assistant" or message.tool_calls:
            found = "'tool_calls'" if message.role == "assistant" else f"the role {message.role!r}"
            raise invalid(
                f"messages[{last}]",
                f"'messages[{last}]' has {found}; allowed where it is to be continued: text of the "
                "role 'assistant'",
            )
