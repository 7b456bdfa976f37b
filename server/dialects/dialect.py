"""The dialects of the family: the tokens that mark tool calls, and how a call is written."""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leadline.loader.tokenizer import Tokenizer


class Mark(enum.Enum):
    """What a token that is no text stands for; `NAME_END` ends a call's name, or its id."""

    THINK_BEGIN = enum.auto()
    THINK_END = enum.auto()
    CALLS_BEGIN = enum.auto()
    CALLS_END = enum.auto()
    CALL_BEGIN = enum.auto()
    CALL_END = enum.auto()
    NAME_END = enum.auto()


class Form(enum.Enum):
    """How a call is written between its marks."""

    DEEPSEEK_V3 = "deepseek_v3"
    """`function`, mark, name, and the arguments in a fence of Markdown."""
    DEEPSEEK_V3_1 = "deepseek_v3_1"
    """Name, mark, arguments."""
    KIMI_K2 = "kimi_k2"
    """`functions.NAME:NUMBER`, which is the call's id, mark, arguments."""


FENCE_BEGIN, FENCE_END = "```json\n", "```"

DEEPSEEK_TEXTS: Mapping[Mark, str] = {
    Mark.CALLS_BEGIN: "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    Mark.CALLS_END: "<\uff5ctool\u2581calls\u2581end\uff5c>",
    Mark.CALL_BEGIN: "<\uff5ctool\u2581call\u2581begin\uff5c>",
    Mark.CALL_END: "<\uff5ctool\u2581call\u2581end\uff5c>",
    Mark.NAME_END: "<\uff5ctool\u2581sep\uff5c>",
}
KIMI_TEXTS: Mapping[Mark, str] = {
    Mark.CALLS_BEGIN: "<|tool_calls_section_begin|>",
    Mark.CALLS_END: "<|tool_calls_section_end|>",
    Mark.CALL_BEGIN: "<|tool_call_begin|>",
    Mark.CALL_END: "<|tool_call_end|>",
    Mark.NAME_END: "<|tool_call_argument_begin|>",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one model writes tool calls.

    Attributes:
        ids: the tokens that mark calls; text that merely spells one is no mark.
        texts: how they are written.
    """

    form: Form
    ids: Mapping[Mark, int]
    texts: Mapping[Mark, str]

    @property
    def example(self) -> str:
        """The format of a call, for a prompt that explains it."""
        (before, after), tail = _around_arguments(self.form, "tool_call_name", "0")
        name_end = self.texts[Mark.NAME_END]
        return (
            f"{self.texts[Mark.CALLS_BEGIN]}{self.texts[Mark.CALL_BEGIN]}{before}{name_end}{after}"
            f"tool_call_arguments{tail}{self.texts[Mark.CALL_END]}"
            "{{additional_tool_calls}}"
            f"{self.texts[Mark.CALLS_END]}"
        )

    def call_rule(self, name: str, arguments: str) -> str:
        """A call of this name in llguidance's Lark; `arguments` is the rule of its arguments."""
        number = "\0"
        (before, after), tail = _around_arguments(self.form, name, number)
        parts = [self.lark(Mark.CALL_BEGIN)]
        prefix, has_number, _ = before.partition(number)
        parts.append(json.dumps(prefix))
        if has_number:
            parts.append("/[0-9]{1,4}/")
        parts.append(self.lark(Mark.NAME_END))
        parts += [json.dumps(after)] if after else []
        parts.append(arguments)
        parts += [json.dumps(tail)] if tail else []
        return " ".join([*parts, self.lark(Mark.CALL_END)])

    @property
    def between_calls(self) -> str:
        """What stands between two calls."""
        return "\n" if self.form is Form.DEEPSEEK_V3 else ""

    def lark(self, mark: Mark) -> str:
        """A mark in llguidance's Lark."""
        return f"<[{self.ids[mark]}]>"


def _around_arguments(form: Form, name: str, number: str) -> tuple[tuple[str, str], str]:
    """What stands before a call's arguments, cut at the mark, and what after them."""
    match form:
        case Form.DEEPSEEK_V3:
            return ("function", f"{name}\n{FENCE_BEGIN}"), f"\n{FENCE_END}"
        case Form.DEEPSEEK_V3_1:
            return (name, ""), ""
        case Form.KIMI_K2:
            return (f"functions.{name}:{number}", ""), ""


def find_dialect(tokenizer: Tokenizer, template: str) -> Dialect | None:
    """The dialect of a checkpoint; None if its tokenizer has no tokens that mark tool calls.

    V3 and V3.1 have the same tokens: a template that writes the arguments in a fence is V3's.

    Args:
        tokenizer: the checkpoint's.
        template: the source of its chat template.
    """
    deepseek = Form.DEEPSEEK_V3 if FENCE_END + "json" in template else Form.DEEPSEEK_V3_1
    for form, texts in ((deepseek, DEEPSEEK_TEXTS), (Form.KIMI_K2, KIMI_TEXTS)):
        encoded = {mark: tokenizer.encode(text) for mark, text in texts.items()}
        if all(len(ids) == 1 for ids in encoded.values()):
            ids = {mark: ids[0] for mark, ids in encoded.items()}
            return Dialect(form=form, ids=ids, texts=texts)
    return None


def tools_text(dialect: Dialect, tools: list[dict[str, Any]]) -> str:
    """The tools, described in a system message, for templates that do not read `tools`.

    The form is that of DeepSeek-V3.1's model card; DeepSeek's own templates leave the tools out.
    """
    entries = []
    for tool in tools:
        function = tool["function"]
        parameters = json.dumps(function.get("parameters") or {}, ensure_ascii=False)
        entries.append(
            f"\n### {function['name']}\nDescription: {function.get('description') or ''}\n\n"
            f"Parameters: {parameters}\n"
        )
    return (
        "## Tools\nYou have access to the following tools:\n"
        + "".join(entries)
        + f"\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n{dialect.example}\n\n"
        "Where:\n\n"
        "- `tool_call_name` must be an exact match to one of the available tools\n"
        "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
        "Schema\n"
        "- For multiple tool calls, chain them directly without separators or spaces\n"
    )
