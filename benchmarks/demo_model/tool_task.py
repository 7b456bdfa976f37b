"""A tool with what people ask of it, what it returns, and the answer made of that."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

from benchmarks.demo_model import values
from benchmarks.demo_model.chat_format import Tool

Arguments = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `draw` makes a value.

    Attributes:
        name: Its key in the arguments.
        kind: Its JSON type.
        description: Said in the schema unless empty.
    """

    name: str
    kind: str
    description: str = ""

    def draw(self, rng: random.Random, heldout: bool) -> Any:
        """Returns a value of the parameter's type."""
        if self.kind == "integer":
            return values.integer(rng, heldout)
        if self.kind == "number":
            return values.decimal(rng, heldout)
        return values.text(rng, heldout)


@dataclass(frozen=True, slots=True)
class ToolTask:
    """One tool.

    Attributes:
        name: The tool's name.
        description: What the model is told about it.
        parameters: In the order in which the model writes them.
        draw: Makes arguments from a generator and whether held-out values are wanted.
        ask: Makes a question from arguments, a generator and whether it is held out.
        result: Makes the tool's output for the arguments.
        reply: The answer for an output that has all its fields: the parameters and the result's
            keys; any other output is answered by `plain_answer`.
        keys: What a client may call a parameter instead of its name.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    draw: Callable[[random.Random, bool], Arguments]
    ask: Callable[[Arguments, random.Random, bool], str]
    result: Callable[[Arguments, random.Random], Any]
    reply: str = ""
    keys: Mapping[str, str] = field(default_factory=dict)

    def call_arguments(self, arguments: Arguments) -> Arguments:
        """Returns the arguments under the names that the schema has for them."""
        return {self.keys.get(name, name): value for name, value in arguments.items()}

    def schema(self, rng: random.Random) -> Tool:
        """Returns the tool as the OpenAI API has it; its form varies, as with clients."""
        properties = {
            self.keys.get(p.name, p.name): {"type": p.kind}
            | ({"description": p.description} if p.description else {})
            for p in self.parameters
        }
        parts: list[tuple[str, Any]] = [("type", "object"), ("properties", properties)]
        if self.parameters and rng.random() < 0.8:
            parts.append(("required", list(properties)))
        if rng.random() < 0.1:
            parts.append(("additionalProperties", False))
        if rng.random() < 0.4:
            parts.sort()
        function = {"name": self.name, "description": self.description, "parameters": dict(parts)}
        return {"type": "function", "function": function}

    def answer(self, arguments: Arguments, result: Any) -> str:
        """Returns what the model says to the output."""
        if self.reply and isinstance(result, dict):
            known = arguments | result
            if all(field in known for _, field, _, _ in Formatter().parse(self.reply) if field):
                return self.reply.format(**known)
        return plain_answer(result)


def output_text(result: Any) -> str:
    """Returns the content of the tool's message: JSON, or a text as it is."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def plain_answer(result: Any) -> str:
    """Returns the answer to an output that the model knows no sentence for."""
    if isinstance(result, str):
        return f"The tool says: {result}"
    if isinstance(result, list):
        return f"The results are {listed(result)}."
    if not isinstance(result, dict):
        return f"The result is {result}."
    if "error" in result:
        return f"The tool failed: {result['error']}."
    said = [f"the {key} is {value}" for key, value in result.items()]
    text = listed(said)
    return text[:1].upper() + text[1:] + "."


def listed(items: list[Any]) -> str:
    """Returns the items in a row: `a, b and c`."""
    texts = [str(item) for item in items]
    return ", ".join(texts[:-1]) + " and " + texts[-1] if len(texts) > 1 else texts[0]
