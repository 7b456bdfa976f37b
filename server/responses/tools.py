"""`tools` and `tool_choice` in the form of this API, and what they are to chat completions."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from leadline.server.dialects.tool_types import ANY_CALL
from leadline.server.errors import invalid, unsupported

NamedChoice = dict[str, Any]


class ResponseTool(BaseModel):
    """A tool of the client's.

    Attributes:
        type: "function"; others are tools that OpenAI runs, or defines.
        parameters: a JSON schema of the arguments.
        strict: the arguments are to match the schema whatever `tool_choice` is.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def for_chat(self, param: str) -> dict[str, Any]:
        """The tool as chat completions have it; `param` is where it stands.

        Raises:
            BadRequestError: it is no function, or has no name.
        """
        if self.type != "function":
            raise unsupported(
                f"{param}.type",
                f"{self.type[:64]!r} is a tool that this server cannot run; allowed: 'function'",
            )
        if self.name is None:
            raise invalid(f"{param}.name", f"'{param}.name' is required")
        given = {"description": self.description, "parameters": self.parameters}
        function: dict[str, Any] = {"name": self.name}
        function |= {name: value for name, value in given.items() if value is not None}
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}

    def echo(self) -> dict[str, Any]:
        """The tool as a response repeats it."""
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters,
            "strict": bool(self.strict),
        }


def chat_fields(
    tools: Sequence[ResponseTool] | None, choice: str | NamedChoice | None
) -> dict[str, Any]:
    """The fields of a chat request that say the same.

    Raises:
        BadRequestError: a tool that is no function, or a choice that this server does not make.
    """
    fields: dict[str, Any] = {}
    if tools:
        fields["tools"] = [tool.for_chat(f"tools[{n}]") for n, tool in enumerate(tools)]
    if choice is not None:
        fields["tool_choice"] = _chat_choice(choice)
    return fields


def _chat_choice(choice: str | NamedChoice) -> str | dict[str, Any]:
    if isinstance(choice, str):
        if choice in ANY_CALL:
            return choice
    elif choice.get("type") == "function":
        if isinstance(name := choice.get("name"), str):
            return {"type": "function", "function": {"name": name}}
    elif choice.get("type") == "allowed_tools":
        allowed = {"mode": choice.get("mode"), "tools": _allowed_tools(choice.get("tools"))}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    else:
        kind = str(choice.get("type"))[:64]
        raise unsupported(
            "tool_choice", f"its type is {kind!r}; allowed: 'function' and 'allowed_tools'"
        )
    raise invalid(
        "tool_choice",
        "'tool_choice' must be 'none', 'auto', 'required', "
        '{"type": "function", "name": ...} or '
        '{"type": "allowed_tools", "mode": ..., "tools": [...]}',
    )


def _allowed_tools(tools: Any) -> list[dict[str, Any]]:
    entries = tools if isinstance(tools, list) else []
    if not entries or not all(isinstance(tool, dict) for tool in entries):
        raise invalid(
            "tool_choice.tools",
            "'tool_choice.tools' must be a list of one or more of "
            '{"type": "function", "name": ...}',
        )
    chosen = []
    for place, tool in enumerate(entries):
        param = f"tool_choice.tools[{place}]"
        kind, name = str(tool.get("type")), tool.get("name")
        if kind != "function":
            raise unsupported(f"{param}.type", f"{kind[:64]!r}; allowed: 'function'")
        if not isinstance(name, str):
            raise invalid(f"{param}.name", f"'{param}.name' is required, and is a text")
        chosen.append({"type": "function", "function": {"name": name}})
    return chosen
