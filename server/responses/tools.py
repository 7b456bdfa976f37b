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
    else:
        kind = str(choice.get("type"))[:64]
        raise unsupported("tool_choice", f"its type is {kind!r}; allowed: 'function'")
    raise invalid(
        "tool_choice",
        "'tool_choice' must be 'none', 'auto', 'required' or "
        '{"type": "function", "name": ...}',
    )
