"""`POST /v1/messages` and `/v1/messages/count_tokens`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.body import validate
from leadline.server.chat_types import ChatRequest
from leadline.server.errors import invalid, unsupported
from leadline.server.messages.blocks import CacheControl, Message, TextBlock
from leadline.server.messages.conversation import chat_messages
from leadline.server.messages.thinking import (
    Effort,
    Thinking,
    ThinkingEnabled,
    is_shown,
)
from leadline.server.messages.thinking import chat_fields as thinking_fields
from leadline.server.messages.tools import Tool, ToolChoice, check_tools
from leadline.server.messages.tools import chat_fields as tool_fields
from leadline.server.not_honoured import ANY_VALUE, IsHarmless, only, refuse_not_honoured
from leadline.server.requests import PlainFields
from leadline.server.sampling_types import (
    FURTHER_FIELDS,
    INT64_MAX,
    StopString,
    Temperature,
    TopK,
    TopP,
)
from leadline.server.unknown_fields import further_fields_of, unknown_fields


class JsonFormat(BaseModel):
    """The answer is JSON of this schema."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(BaseModel):
    """What is asked of the answer.

    Attributes:
        effort: bounds the thinking; without thinking there is nothing that it could bound.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    effort: Effort | None = None
    format: JsonFormat | None = None


class Metadata(BaseModel):
    """Labels of the request; nothing depends on them."""

    model_config = ConfigDict(strict=True, extra="allow")

    user_id: str | None = None


class _ChatPrompt(ChatRequest):
    """A chat request that may ask for no token at all, to have its prompt cached."""

    max_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None


def _keeps_all(value: Any) -> bool:
    """Whether edits of the context ask for what is done anyway: clients send this unasked."""
    match value:
        case {"edits": list(edits), **others} if not others:
            return all(edit == {"type": "clear_thinking_20251015", "keep": "all"} for edit in edits)
    return value in (None, {})


class CountTokensRequest(PlainFields):
    """A conversation whose tokens are to be counted.

    A last message of the assistant's is the beginning of the answer, which goes on with it.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        "container": only(),
        "context_management": _keeps_all,
        "diagnostics": only({"previous_message_id": None}),
        "fallbacks": only(),
        "inference_geo": only(),
        "mcp_servers": only(),
        "service_tier": only("auto", "standard_only"),
        "speed": only("standard"),
        "user_profile_id": ANY_VALUE,
    }
    further_fields: ClassVar[frozenset[str]] = frozenset(FURTHER_FIELDS)

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    cache_control: CacheControl | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def shows_thinking(self) -> bool:
        """Whether the answer has the text of what the model thinks."""
        return is_shown(self.thinking)

    def check(self) -> list[str]:
        """Look at the fields that are not honoured, and at fields that belong together.

        Returns:
            Names of fields that nobody knows.

        Raises:
            BadRequestError: a known field asks for what this server does not do.
        """
        refuse_not_honoured(self, self.not_honoured)
        check_tools(self.tools or [])
        config = self.output_config or OutputConfig()
        if config.format is not None and self.output_format is not None:
            raise invalid("output_format", "give 'output_format' or 'output_config.format'")
        return unknown_fields(self)

    def chat(self, *, can_think: bool) -> ChatRequest:
        """The chat request that asks for the same.

        Args:
            can_think: the model's thinking is marked.

        Raises:
            BadRequestError: a block that cannot be read, thinking that the model is not capable
                of, or what chat completions refuse.
        """
        if isinstance(self.thinking, ThinkingEnabled) and not can_think:
            raise unsupported(
                "thinking",
                "it needs a model whose tokenizer has <think> and </think> as single tokens; "
                'leave it out, or send {"type": "disabled"}',
            )
        effort = None if self.output_config is None else self.output_config.effort
        messages = chat_messages(self.system, self.messages)
        begun = messages[-1] if self.messages[-1].role == "assistant" else None
        has_begun = begun is not None and "reasoning_content" not in begun
        if has_begun and isinstance(self.thinking, ThinkingEnabled):
            raise invalid(
                "thinking",
                "'thinking' is enabled, but the last message begins the answer without it; leave "
                "'thinking' out, or begin with a 'thinking' block",
            )
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "continue_final_message": begun is not None,
            **(thinking_fields(self.thinking, effort) if can_think else {}),
            **(tool_fields(self.tools, self.tool_choice) if self.tools else {}),
            **self._sampling(),
        }
        if self.chat_template_kwargs:
            settings = fields.get("chat_template_kwargs", {})
            fields["chat_template_kwargs"] = {**settings, **self.chat_template_kwargs}
        if self._format is not None:
            json_schema = {"name": "output", "schema": self._format.schema_, "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        request = validate(fields, _ChatPrompt)
        request.check()
        return request

    @property
    def _format(self) -> JsonFormat | None:
        """What the answer must match."""
        config = self.output_config or OutputConfig()
        return config.format or self.output_format

    def _sampling(self) -> dict[str, Any]:
        """Further fields of the chat request."""
        return {}


class MessagesRequest(CountTokensRequest):
    """A conversation to be continued.

    Attributes:
        max_tokens: 0 computes the prompt, and with it fills the prefix cache, and no more. What
            the model has no room for is not generated: the answer then ends with
            `model_context_window_exceeded`.
        stop_sequences: looked for in text, not in thinking or the input of tools.
    """

    max_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)]
    stop_sequences: list[StopString] | None = None
    stream: bool | None = None
    temperature: Temperature | None = None
    top_k: TopK | None = None
    top_p: TopP | None = None
    metadata: Metadata | None = None

    def check(self) -> list[str]:
        """As `CountTokensRequest.check`; the budget of thinking is looked at too."""
        unknown = super().check()
        if self.max_tokens == 0 and self.stream:
            raise invalid("max_tokens", "'max_tokens' is 0; allowed: at least 1 with 'stream'")
        if isinstance(self.thinking, ThinkingEnabled):
            budget_tokens = self.thinking.budget_tokens
            if budget_tokens >= self.max_tokens:
                raise invalid(
                    "thinking.budget_tokens",
                    f"'thinking.budget_tokens' is {budget_tokens}; allowed: less than max_tokens, "
                    f"which is {self.max_tokens}",
                )
        return unknown

    def _sampling(self) -> dict[str, Any]:
        return {
            "max_tokens": self.max_tokens,
            "stop": self.stop_sequences,
            "stream": self.stream,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            **further_fields_of(self),
        }
