"""`tools`, `tool_choice` and `parallel_tool_calls`: what comes in, and what it asks for."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leadline.server.errors import invalid

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
        return (
            self.is_forced
            or len(self.callable) < len(self.tools)
            or any(tool.function.strict for tool in self.tools)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    """`tool_choice`, but for "none".

    Attributes:
        names: of the tools that may be called; None for all.
        is_forced: one must be called.
        is_one: and no more than one.
    """

    names: list[str] | None = None
    is_forced: bool = False
    is_one: bool = False


def tool_use_of(
    tools: list[Tool] | None, tool_choice: str | dict[str, Any] | None, is_parallel: bool | None
) -> ToolUse | None:
    """What the three fields ask for; None if no tool may be called.

    Raises:
        BadRequestError: `tool_choice` is no choice among the tools, or a name is given twice.
    """
    choice = _choice_of(tool_choice)
    if not tools:
        if choice.is_forced or choice.names is not None:
            raise invalid("tool_choice", "'tool_choice' asks for a call, but there are no 'tools'")
        return None
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.function.name in names:
            param = f"tools[{index}].function.name"
            raise invalid(param, f"'{param}' is that of an earlier tool: {tool.function.name!r}")
        names.add(tool.function.name)
    for name in choice.names or ():
        if name not in names:
            raise invalid(
                "tool_choice", f"'tool_choice' names {name[:64]!r}, which is none of the 'tools'"
            )
    if tool_choice == "none":
        return None
    is_any = choice.names is None
    return ToolUse(
        tools=tools,
        callable=[t for t in tools if is_any or t.function.name in (choice.names or ())],
        is_forced=choice.is_forced,
        max_calls=1 if choice.is_one or is_parallel is False else None,
    )


def _choice_of(tool_choice: str | dict[str, Any] | None) -> _Choice:
    if tool_choice is None or tool_choice in ANY_CALL:
        return _Choice(is_forced=tool_choice == "required")
    if isinstance(tool_choice, dict):
        if tool_choice.get("type") == "allowed_tools":
            return _allowed(tool_choice.get("allowed_tools"))
        if (name := _name_of(tool_choice)) is not None:
            return _Choice(names=[name], is_forced=True, is_one=True)
    raise invalid(
        "tool_choice",
        "'tool_choice' must be 'none', 'auto', 'required', "
        '{"type": "function", "function": {"name": ...}} or '
        '{"type": "allowed_tools", "allowed_tools": {"mode": ..., "tools": [...]}}',
    )


def _allowed(allowed: Any) -> _Choice:
    """The tools that may be called, among those that the model is told of."""
    param = "tool_choice.allowed_tools"
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if mode not in ("auto", "required"):
        shown = repr(mode)[:64]
        raise invalid(param, f"'{param}.mode' is {shown}; allowed: 'auto' and 'required'")
    tools = allowed.get("tools")
    names = [_name_of(tool) for tool in tools] if isinstance(tools, list) else []
    known = [name for name in names if name is not None]
    if not known or len(known) < len(names):
        raise invalid(
            param,
            f"'{param}.tools' must be a list of one or more of "
            '{"type": "function", "function": {"name": ...}}',
        )
    return _Choice(names=known, is_forced=mode == "required")


def _name_of(tool: Any) -> str | None:
    """The function that is named; None if there is none."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return None
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
