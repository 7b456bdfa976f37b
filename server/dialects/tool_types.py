"""`tools`, `tool_choice` and `parallel_tool_calls`: what comes in, and what it asks for."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import BadRequestError, invalid

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
ANY_CALL = ("none", "auto", "required")


class Function(BaseModel):
    """A function that the model may call.

    Attributes:
        parameters: a JSON schema of the arguments; absent for a function that takes none.
        strict: the arguments are to match the schema whatever `tool_choice` is.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """An entry of `tools`."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["function"]
    function: Function

    def for_template(self) -> dict[str, Any]:
        """The tool as the model is told of it: `strict` is the server's business."""
        return self.model_dump(exclude_unset=True, exclude={"function": {"strict"}})


class CalledFunction(BaseModel):
    """The function of a call in a message; the arguments are a text, or the object itself."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str
    arguments: str | dict[str, Any] = ""


class MessageToolCall(BaseModel):
    """A call that an assistant's message has made."""

    model_config = ConfigDict(strict=True, extra="allow")

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        """The call as templates read it: some join the arguments to other text as they are."""
        arguments = self.function.arguments
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {**self.function.model_dump(), "arguments": arguments}
        return {**self.model_dump(), "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """What a request says about calls.

    Attributes:
        tools: all that the model is told of.
        callable: those that it may call.
        is_forced: it must call at least one.
        max_calls: most calls of an answer; None for any number.
    """

    tools: list[Tool]
    callable: list[Tool]
    is_forced: bool
    max_calls: int | None

    @property
    def needs_grammar(self) -> bool:
        """Whether anything is asked of the answer's form."""
        return self.is_forced or any(tool.function.strict for tool in self.tools)


def tool_use_of(
    tools: list[Tool] | None, tool_choice: str | dict[str, Any] | None, is_parallel: bool | None
) -> ToolUse | None:
    """What the three fields ask for; None if no tool may be called.

    Raises:
        BadRequestError: `tool_choice` is no choice among the tools, or a name is given twice.
    """
    name = _named(tool_choice)
    if not tools:
        if name is not None or tool_choice == "required":
            raise invalid("tool_choice", "'tool_choice' asks for a call, but there are no 'tools'")
        return None
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.function.name in names:
            param = f"tools[{index}].function.name"
            raise invalid(param, f"'{param}' is that of an earlier tool: {tool.function.name!r}")
        names.add(tool.function.name)
    if name is not None and name not in names:
        raise invalid(
            "tool_choice", f"'tool_choice' names {name[:64]!r}, which is none of the 'tools'"
        )
    if tool_choice == "none":
        return None
    return ToolUse(
        tools=tools,
        callable=[tool for tool in tools if name in (None, tool.function.name)],
        is_forced=name is not None or tool_choice == "required",
        max_calls=1 if name is not None or is_parallel is False else None,
    )


def _named(tool_choice: str | dict[str, Any] | None) -> str | None:
    """The function that `tool_choice` names."""
    if tool_choice is None or tool_choice in ANY_CALL:
        return None
    if isinstance(tool_choice, dict) and tool_choice.get("type") == "function":
        function = tool_choice.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if isinstance(name, str):
            return name
    raise BadRequestError(
        "'tool_choice' must be 'none', 'auto', 'required' or "
        '{"type": "function", "function": {"name": ...}}',
        param="tool_choice",
        code="invalid_value",
    )
