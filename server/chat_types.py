"""`POST /v1/chat/completions`: what comes in."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.chat_message import Message
from leadline.server.dialects.functions import FunctionChoice, function_use_of
from leadline.server.dialects.tool_types import Function, Tool, ToolUse, tool_use_of
from leadline.server.errors import invalid, unsupported
from leadline.server.not_honoured import ABSENT, NOT_HONOURED, IsHarmless, only
from leadline.server.sampling_types import INT64_MAX, NumLogprobs, SamplingFields
from leadline.server.structured_output import OUTPUT_ALIASES
from leadline.server.thinking import EFFORT_BUDGETS, Effort

# What a client may hand to the template; the rest would change what the server itself decides.
TEMPLATE_SETTINGS = ("thinking", "enable_thinking")


class ThinkingSwitch(BaseModel):
    """DeepSeek's `thinking`: whether the model thinks before it answers."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["enabled", "disabled"]


class ChatRequest(SamplingFields):
    """A conversation to be continued.

    `stop` is looked for in the content of answers, not in their reasoning or tool calls. With the
    `tool_choice` "none" the model is not told of the tools; with "required" or a name, and with a
    function that is `strict`, calls match the schemas of their functions.

    Attributes:
        continue_final_message: the answer goes on with the last message, an assistant's, of which
            it does not repeat anything.
        echo: answers begin with the content of the last message, if it is an assistant's.
        include_reasoning: false leaves out of the answer what the model thinks.
        separate_reasoning: false leaves it in the content, with the marks that end it.
    """

    not_honoured: ClassVar[Mapping[str, IsHarmless]] = {
        **NOT_HONOURED,
        "modalities": only(["text"]),
        "audio": only(),
        "prediction": only(),
        "web_search_options": ABSENT,
        "verbosity": only("medium"),
        "stream_reasoning": only(True),
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
    thinking: ThinkingSwitch | None = None
    include_reasoning: bool | None = None
    separate_reasoning: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: FunctionChoice | None = None
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
    def hides_reasoning(self) -> bool:
        """`include_reasoning`."""
        return self.include_reasoning is False

    @property
    def can_think(self) -> bool | None:
        """What `thinking` or else `reasoning_effort` says of it; None if they say nothing."""
        if self.thinking is not None:
            return self.thinking.type == "enabled"
        return None if self.reasoning_effort is None else self.reasoning_effort != "none"

    @property
    def thinking_budget(self) -> int | None:
        """0 if `thinking` is off, or `thinking_token_budget`, or what the effort stands for."""
        if self.thinking is not None and not self.can_think:
            return 0
        if self.thinking_token_budget is None and self.reasoning_effort is not None:
            return EFFORT_BUDGETS[self.reasoning_effort]
        return self.thinking_token_budget

    @property
    def thinking_param(self) -> str | None:
        """The field among these that is given; None if none is."""
        if self.thinking is not None:
            return "thinking"
        effort = None if self.reasoning_effort is None else "reasoning_effort"
        return super().thinking_param or effort

    @property
    def prompt_param(self) -> str:
        """The field that holds the prompt."""
        return "messages"

    @property
    def template_settings(self) -> dict[str, Any]:
        """Variables for the template; `chat_template_kwargs` win over the other fields."""
        settings: dict[str, Any] = {}
        if self.can_think is not None:
            settings = dict.fromkeys(TEMPLATE_SETTINGS, self.can_think)
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
    def _grammar_param(self) -> str | None:
        """The field that gives a whole grammar; None if none does."""
        if self.structured_outputs is not None and self.structured_outputs.grammar is not None:
            return "structured_outputs"
        names = (name for name, form in OUTPUT_ALIASES.items() if form == "grammar")
        return next((name for name in names if getattr(self, name) is not None), None)

    @property
    def has_functions(self) -> bool:
        """Whether calls come and go in OpenAI's older form."""
        return bool(self.functions) or self.function_call is not None

    @property
    def tool_use(self) -> ToolUse | None:
        """What is asked for about tool calls; None if none may be made.

        Raises:
            BadRequestError: as `tool_use_of` and `function_use_of`.
        """
        if self.has_functions:
            return function_use_of(self.functions or [], self.function_call)
        return tool_use_of(self.tools, self.tool_choice, self.parallel_tool_calls)

    def check(self) -> list[str]:
        """As `SamplingFields.check`; tools are looked at too."""
        unknown = super().check()
        if self.has_functions and self.tools:
            name = "functions" if self.functions else "function_call"
            raise invalid(name, f"'{name}' is the older form of 'tools'; give one of the two forms")
        use, param = self.tool_use, self._grammar_param
        if use is not None and not use.is_forced and param is not None:
            raise invalid(
                param,
                f"'{param}' has a grammar, which leaves no room for calls; ask for a JSON schema "
                "or a regular expression, or set 'tool_choice' to 'none' or 'required'",
            )
        self._check_prefix()
        if self.thinking is not None and self.can_think and self.reasoning_effort == "none":
            raise invalid(
                "reasoning_effort",
                "'reasoning_effort' is \"none\", but 'thinking' is enabled; leave one of them out",
            )
        if self.hides_reasoning and self.separate_reasoning is False:
            raise invalid(
                "include_reasoning",
                "'include_reasoning' is false, but so is 'separate_reasoning': what is not told "
                "apart cannot be left out; leave one of them out",
            )
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
        if message.role != "assistant" or message.calls:
            found = "'tool_calls'" if message.role == "assistant" else f"the role {message.role!r}"
            raise invalid(
                f"messages[{last}]",
                f"'messages[{last}]' has {found}; allowed where it is to be continued: text of the "
                "role 'assistant'",
            )
