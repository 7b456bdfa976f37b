"""`POST /v1/responses` and `/v1/responses/input_tokens`: what comes in."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.body import validate
from leadline.server.chat_types import ChatRequest
from leadline.server.errors import invalid, unsupported
from leadline.server.not_honoured import ANY_VALUE, IsHarmless, only, refuse_not_honoured
from leadline.server.requests import PlainFields
from leadline.server.responses.conversation import chat_messages
from leadline.server.responses.items import Item, MessageItem
from leadline.server.responses.text_format import TextConfig
from leadline.server.responses.tools import ResponseTool, chat_fields
from leadline.server.sampling_types import FURTHER_FIELDS, INT64_MAX, NumLogprobs, Temperature, TopP
from leadline.server.thinking import Effort
from leadline.server.unknown_fields import further_fields_of, unknown_fields

# What chat completions take beyond this API, as vLLM does; they validate it.
CHAT_FIELDS = (
    *FURTHER_FIELDS,
    "top_k",
    "structured_outputs",
    "thinking_token_budget",
    "stop",
    "include_stop_str_in_output",
    "skip_special_tokens",
    "user_id",
    "chat_template_kwargs",
)
_ADVICE = {
    "conversation": "it keeps responses, not conversations; continue one with "
    "'previous_response_id'",
}
_LABELS = ("user", "safety_identifier", "prompt_cache_key", "metadata")
_LOGPROBS = "message.output_text.logprobs"
# Of the others, each asks for more of an item that no answer here has, or for nothing new.
_INCLUDABLE = (
    _LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "message.input_image.image_url",
)


class ReasoningConfig(BaseModel):
    """How much the model is to think.

    Attributes:
        summary: "auto" leaves it to the server, which makes none: it shows the reasoning itself.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None

    def check(self) -> None:
        """Refuse what is not honoured.

        Raises:
            BadRequestError: names the field.
        """
        for name in ("summary", "generate_summary", "context"):
            if getattr(self, name) not in (None, "auto"):
                raise unsupported(f"reasoning.{name}", "leave it out; allowed: 'auto'")
        if self.mode not in (None, "standard"):
            raise unsupported("reasoning.mode", "leave it out; allowed: 'standard'")


class ResponseStreamOptions(BaseModel):
    """What a stream carries beside the events; padding against eavesdroppers is not among it."""

    model_config = ConfigDict(strict=True, extra="allow")

    include_obfuscation: Literal[False] | None = None


class InputTokensRequest(PlainFields):
    """A conversation whose tokens are to be counted.

    Attributes:
        truncation: "auto" leaves out the oldest items of a conversation that is too long, but for
            what the system and the developer say; with "disabled" it is an error.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        "conversation": only(),
        "personality": only(),
    }
    further_fields: ClassVar[frozenset[str]] = frozenset(("chat_template_kwargs",))

    input: str | list[Item] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None

    @property
    def items(self) -> list[Item]:
        """`input`, always as a list."""
        if isinstance(self.input, str):
            return [MessageItem(type="message", role="user", content=self.input)]
        return self.input or []

    def check(self) -> list[str]:
        """Look at the fields that are not honoured, and at fields that belong together.

        Returns:
            Names of fields that nobody knows.

        Raises:
            BadRequestError: a known field asks for what this server does not do.
        """
        refuse_not_honoured(self, self.not_honoured, _ADVICE)
        if self.text is not None:
            self.text.check()
        if self.reasoning is not None:
            self.reasoning.check()
        if not self.items and self.previous_response_id is None:
            raise invalid("input", "'input' is missing or empty; give a text, or a list of items")
        return unknown_fields(self)

    def chat(self, model: str, items: Sequence[Item], *, num_earlier: int) -> ChatRequest:
        """The chat request that asks for the same.

        Args:
            model: its name in the API.
            items: the whole conversation.
            num_earlier: how many of them are not `input`, but from before.

        Raises:
            BadRequestError: an item that cannot be read, or what chat completions refuse, by
                their names of the fields.
        """
        fields: dict[str, Any] = {
            "model": model,
            "messages": chat_messages(self.instructions, items, num_earlier=num_earlier),
            "parallel_tool_calls": self.parallel_tool_calls,
            "reasoning_effort": None if self.reasoning is None else self.reasoning.effort,
            "response_format": None if self.text is None else self.text.response_format,
            **chat_fields(self.tools, self.tool_choice),
            **self._sampling(),
        }
        fields |= further_fields_of(self)
        request = validate(fields, ChatRequest)
        request.check()
        return request

    def _sampling(self) -> dict[str, Any]:
        """Further fields of the chat request."""
        return {}


class ResponseRequest(InputTokensRequest):
    """A conversation to be continued.

    Attributes:
        instructions: what the system says first; of this response alone, not of those that follow.
        background: answer at once, with a response that is queued; it is asked for by its id.
            With `stream` its events are kept too, so that a client that has left can go on.
        store: keep the response, so that it can be asked for and continued; true if absent.
        include: log-probabilities of the text, which `top_logprobs` above 0 asks for too; of what
            else can be asked for, answers have all that there is anyway.
        max_tool_calls: of tools that the server runs, and there are none.
        stream_options: padding against eavesdroppers is not sent.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **InputTokensRequest.not_honoured,
        "access_programs": only(),
        "background_options": only(),
        "client_metadata": ANY_VALUE,
        "chat_template": only(),
        "context_management": only(),
        "enable_response_messages": only(False),
        "image": only(),
        "kv_transfer_params": only(),
        "mm_processor_kwargs": only(),
        "moderation": only(),
        "n": only(1),
        "previous_input_messages": only(),
        "prompt": only(),
        "prompt_cache_options": only({"mode": "implicit"}),
        "prompt_cache_retention": ANY_VALUE,
        "service_tier": only("auto", "default"),
        "vllm_xargs": only(),
    }
    further_fields: ClassVar[frozenset[str]] = frozenset(CHAT_FIELDS)

    model: str
    max_output_tokens: Annotated[int, Field(ge=1, le=INT64_MAX)] | None = None
    max_tool_calls: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    include: list[str] | None = None
    top_logprobs: NumLogprobs | None = None
    background: bool | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    # Labels, which change no answer; they are told again with it
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None

    def check(self) -> list[str]:
        """As `InputTokensRequest.check`; what is to be included is looked at too."""
        unknown = super().check()
        for place, name in enumerate(self.include or ()):
            param = f"include[{place}]"
            if name not in _INCLUDABLE:
                allowed = ", ".join(_INCLUDABLE)
                raise invalid(param, f"'{param}' is {name[:64]!r}; allowed: {allowed}")
        if self.background and self.store is False:
            raise invalid("background", "'background' is only allowed if 'store' is not false")
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "'stream_options' is only allowed if 'stream' is true")
        return unknown

    @property
    def has_logprobs(self) -> bool:
        """Whether those of the text are told."""
        return bool(self.top_logprobs) or _LOGPROBS in (self.include or ())

    def _sampling(self) -> dict[str, Any]:
        return {
            "logprobs": self.has_logprobs,
            "top_logprobs": self.top_logprobs or None,
            "max_completion_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            **{name: getattr(self, name) for name in _LABELS},
        }
