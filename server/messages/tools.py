"""`tools` and `tool_choice` in Anthropic's form, and what they are to chat completions."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.dialects.tool_types import FunctionName
from leadline.server.errors import invalid, unsupported
from leadline.server.messages.blocks import CacheControl


class Tool(BaseModel):
    """A tool that the client runs.

    Attributes:
        type: "custom"; others are tools that Anthropic defines, or runs itself.
        strict: the input is to match the schema whatever `tool_choice` is.
        eager_input_streaming: inputs are always streamed as they come.
        input_examples: are shown to the model as part of the schema.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    name: FunctionName
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None

    def check(self, param: str) -> None:
        """Refuse what is not a tool of the client's; `param` is where it stands.

        Raises:
            BadRequestError: names the field.
        """
        if self.type not in (None, "custom"):
            raise unsupported(
                f"{param}.type",
                f"{self.type[:64]!r} is a tool that Anthropic defines; allowed: 'custom', with "
                "an 'input_schema'",
            )
        if self.input_schema is None:
            raise invalid(f"{param}.input_schema", f"'{param}.input_schema' is required")
        if self.defer_loading:
            raise unsupported(f"{param}.defer_loading", "leave it out: all tools are shown at once")
        if self.allowed_callers and self.allowed_callers != ["direct"]:
            raise unsupported(f"{param}.allowed_callers", 'leave it out, or send ["direct"]')

    def for_chat(self) -> dict[str, Any]:
        """The tool as chat completions have it."""
        parameters = dict(self.input_schema or {})
        if self.input_examples:
            parameters["examples"] = self.input_examples
        function: dict[str, Any] = {"name": self.name, "parameters": parameters}
        if self.description is not None:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class FreeChoice(BaseModel):
    """Any tool: if the model likes, or in any case."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["auto", "any"]
    disable_parallel_tool_use: bool | None = None


class NamedChoice(BaseModel):
    """This tool."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class NoChoice(BaseModel):
    """No tool; the model is not told of any."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["none"]
    disable_parallel_tool_use: bool | None = None


ToolChoice = Annotated[FreeChoice | NamedChoice | NoChoice, Field(discriminator="type")]


def check_tools(tools: Sequence[Tool]) -> None:
    """Refuse tools that are not the client's, and names that are given twice.

    Raises:
        BadRequestError: names the field.
    """
    names: set[str] = set()
    for index, tool in enumerate(tools):
        tool.check(f"tools[{index}]")
        if tool.name in names:
            param = f"tools[{index}].name"
            raise invalid(param, f"'{param}' is that of an earlier tool: {tool.name!r}")
        names.add(tool.name)


def chat_fields(tools: Sequence[Tool], choice: ToolChoice | None) -> dict[str, Any]:
    """The fields of a chat request that say the same."""
    fields: dict[str, Any] = {"tools": [tool.for_chat() for tool in tools]}
    if choice is None:
        return fields
    if isinstance(choice, NamedChoice):
        fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    else:
        fields["tool_choice"] = "required" if choice.type == "any" else choice.type
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields
