"""`functions` and `function_call`: OpenAI's older fields, as the tools that they stand for."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from leadline.server.dialects.tool_types import Function, Tool, ToolUse
from leadline.server.errors import invalid


class NamedFunction(BaseModel):
    """`function_call`: this function."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str


FunctionChoice = Literal["none", "auto"] | NamedFunction


def function_use_of(
    functions: Sequence[Function], function_call: FunctionChoice | None
) -> ToolUse | None:
    """What the two fields ask for; None if no function may be called. An answer has one call.

    Raises:
        BadRequestError: `function_call` names no function, or a name is given twice.
    """
    names = [function.name for function in functions]
    for index, name in enumerate(names):
        if name in names[:index]:
            param = f"functions[{index}].name"
            raise invalid(param, f"'{param}' is that of an earlier function: {name!r}")
    named = function_call.name if isinstance(function_call, NamedFunction) else None
    if named is not None and named not in names:
        raise invalid(
            "function_call", f"'function_call' names {named[:64]!r}, which is none of 'functions'"
        )
    if not functions or function_call == "none":
        return None
    tools = [Tool(type="function", function=function) for function in functions]
    return ToolUse(
        tools=tools,
        callable=[tool for tool in tools if named in (None, tool.function.name)],
        is_forced=named is not None,
        max_calls=1,
    )
