"""DeepSeek-V3.1's chat format: its tokens, its jinja template, and the same text in Python.

Source: the grammar published with DeepSeek-V3.1 (model card and `tokenizer_config.json`). A
    conversation is

    BOS system-and-tools (USER text ASSISTANT </think> answer EOS)*

where the last turn may begin with `<think>` instead, in which case the model writes its reasoning
and `</think>` before the answer. Reasoning of earlier turns is not shown again. A tool call is an
answer; the tool's output follows it and the model goes on right after the output without a new role
token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BOS = "<\uff5cbegin\u2581of\u2581sentence\uff5c>"
EOS = "<\uff5cend\u2581of\u2581sentence\uff5c>"
PAD = "<\uff5c\u2581pad\u2581\uff5c>"
USER = "<\uff5cUser\uff5c>"
ASSISTANT = "<\uff5cAssistant\uff5c>"
END_OF_TURN = "<|EOT|>"
THINK = "<think>"
END_THINK = "</think>"
TOOL_CALLS_BEGIN = "<\uff5ctool\u2581calls\u2581begin\uff5c>"
TOOL_CALLS_END = "<\uff5ctool\u2581calls\u2581end\uff5c>"
TOOL_CALL_BEGIN = "<\uff5ctool\u2581call\u2581begin\uff5c>"
TOOL_CALL_END = "<\uff5ctool\u2581call\u2581end\uff5c>"
TOOL_SEP = "<\uff5ctool\u2581sep\uff5c>"
TOOL_OUTPUTS_BEGIN = "<\uff5ctool\u2581outputs\u2581begin\uff5c>"
TOOL_OUTPUTS_END = "<\uff5ctool\u2581outputs\u2581end\uff5c>"
TOOL_OUTPUT_BEGIN = "<\uff5ctool\u2581output\u2581begin\uff5c>"
TOOL_OUTPUT_END = "<\uff5ctool\u2581output\u2581end\uff5c>"

# In the order of their ids, from 0. The first group is skipped by `skip_special_tokens`, the second
# is text that a parser of reasoning and tool calls must see, as in the tokenizer of DeepSeek-V3.1.
SPECIAL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT, END_OF_TURN)
MARKUP_TOKENS = (
    THINK,
    END_THINK,
    TOOL_CALLS_BEGIN,
    TOOL_CALLS_END,
    TOOL_CALL_BEGIN,
    TOOL_CALL_END,
    TOOL_SEP,
    TOOL_OUTPUTS_BEGIN,
    TOOL_OUTPUTS_END,
    TOOL_OUTPUT_BEGIN,
    TOOL_OUTPUT_END,
)

_TOOLS_HEAD = "## Tools\nYou have access to the following tools:\n"
_TOOLS_TAIL = (
    "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
    f"{TOOL_CALLS_BEGIN}{TOOL_CALL_BEGIN}tool_call_name{TOOL_SEP}tool_call_arguments{TOOL_CALL_END}"
    "{{additional_tool_calls}}"
    f"{TOOL_CALLS_END}\n\nWhere:\n\n"
    "- `tool_call_name` must be an exact match to one of the available tools\n"
    "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
    "Schema\n"
    "- For multiple tool calls, chain them directly without separators or spaces\n"
)

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation.

    Attributes:
        messages: Messages as the OpenAI API has them: `role`, `content`, and for an assistant
            `tool_calls` or `reasoning_content`.
        thinking: Whether the last turn is asked for in thinking mode.
        tools: The tools offered, as the OpenAI API has them.
    """

    messages: tuple[Message, ...]
    thinking: bool = False
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a rendered chat: given, or (`is_target`) to be produced by the model."""

    text: str
    is_target: bool


def render_segments(chat: Chat) -> list[Segment]:
    """Renders a whole chat, cut where the model takes over and where it stops.

    The chat ends with an assistant message. The reasoning of the last message is rendered if the
    chat is in thinking mode. Every segment begins and ends at an added token, so that encoding the
    segments one by one equals encoding the whole text.
    """
    segments: list[Segment] = []
    given = BOS + _system_text(chat)
    after_user = False
    last = len(chat.messages) - 1
    for index, message in enumerate(chat.messages):
        role = message["role"]
        if role == "user":
            given += USER + message["content"]
            after_user = True
        elif role == "tool":
            given += TOOL_OUTPUT_BEGIN + message["content"] + TOOL_OUTPUT_END
            after_user = False
        elif role == "assistant":
            reasoning = (
                message.get("reasoning_content") if chat.thinking and index == last else None
            )
            if after_user:
                given += ASSISTANT + (END_THINK if reasoning is None else THINK)
            after_user = False
            segments.append(Segment(given, is_target=False))
            segments.append(Segment(target_text(message, reasoning) + EOS, is_target=True))
            given = ""
    assert not given, "a chat to learn from ends with an assistant message"
    return segments


def render_prompt(chat: Chat) -> str:
    """Renders a chat that ends with a user or tool message, up to where the model takes over."""
    completed = Chat((*chat.messages, _EMPTY_ANSWER), chat.thinking, chat.tools)
    return "".join(segment.text for segment in render_segments(completed)[:-1])


_EMPTY_ANSWER: Message = {"role": "assistant", "content": "", "reasoning_content": ""}


def target_text(message: Message, reasoning: str | None = None) -> str:
    """Returns what the model must write for an assistant message, without the end token."""
    text = message.get("content") or ""
    if reasoning is not None:
        text = reasoning + END_THINK + text
    calls = message.get("tool_calls")
    if calls:
        text += TOOL_CALLS_BEGIN
        for call in calls:
            function = call["function"]
            text += (
                TOOL_CALL_BEGIN
                + function["name"]
                + TOOL_SEP
                + function["arguments"]
                + TOOL_CALL_END
            )
        text += TOOL_CALLS_END
    return text


def _system_text(chat: Chat) -> str:
    text = "\n\n".join(m["content"] for m in chat.messages if m["role"] == "system")
    return text + ("\n\n" + tools_text(chat.tools) if chat.tools else "")


def tools_text(tools: Sequence[Tool]) -> str:
    """Returns the block that describes the tools to the model."""
    entries = [
        f"\n### {tool['function']['name']}\nDescription: {tool['function']['description']}\n\n"
        f"Parameters: {json.dumps(tool['function']['parameters'], ensure_ascii=False)}\n"
        for tool in tools
    ]
    return _TOOLS_HEAD + "".join(entries) + _TOOLS_TAIL


def _quoted(text: str) -> str:
    """Returns the text as a jinja string literal; it holds no double quote and no backslash."""
    return '"' + text.replace("\n", "\\n") + '"'


CHAT_TEMPLATE = f"""\
{{%- set thinking = thinking | default(false) -%}}
{{%- set system = namespace(text="", count=0) -%}}
{{%- for message in messages if message["role"] == "system" -%}}
  {{%- set system.text = system.text + ("\\n\\n" if system.count else "") + message["content"] -%}}
  {{%- set system.count = system.count + 1 -%}}
{{%- endfor -%}}
{{%- if tools -%}}
  {{%- set system.text = system.text + "\\n\\n" + {_quoted(_TOOLS_HEAD)} -%}}
  {{%- for tool in tools -%}}
    {{%- set function = tool["function"] -%}}
    {{%- set system.text = system.text + "\\n### " + function["name"]
        + "\\nDescription: " + (function["description"] | default("", true))
        + "\\n\\nParameters: " + (function["parameters"] | default({{}}, true) | tojson)
        + "\\n" -%}}
  {{%- endfor -%}}
  {{%- set system.text = system.text + {_quoted(_TOOLS_TAIL)} -%}}
{{%- endif -%}}
{{{{- bos_token + system.text -}}}}
{{%- set turn = namespace(after_user=false, after_tool=false) -%}}
{{%- for message in messages -%}}
  {{%- if message["role"] == "user" -%}}
    {{{{- "{USER}" + message["content"] -}}}}
    {{%- set turn.after_user = true -%}}
    {{%- set turn.after_tool = false -%}}
  {{%- elif message["role"] == "tool" -%}}
    {{{{- "{TOOL_OUTPUT_BEGIN}" + message["content"] + "{TOOL_OUTPUT_END}" -}}}}
    {{%- set turn.after_user = false -%}}
    {{%- set turn.after_tool = true -%}}
  {{%- elif message["role"] == "assistant" -%}}
    {{%- if turn.after_user -%}}
      {{%- set begins_thinking = message["prefix"] and thinking and not message["tool_calls"] -%}}
      {{{{- "{ASSISTANT}" + ("{THINK}" if begins_thinking else "{END_THINK}") -}}}}
    {{%- endif -%}}
    {{%- set content = message["content"] or "" -%}}
    {{%- if message["tool_calls"] -%}}
      {{{{- content + "{TOOL_CALLS_BEGIN}" -}}}}
      {{%- for call in message["tool_calls"] -%}}
        {{%- set arguments = call["function"]["arguments"] -%}}
        {{{{- "{TOOL_CALL_BEGIN}" + call["function"]["name"] + "{TOOL_SEP}"
            + (arguments if arguments is string else arguments | tojson) + "{TOOL_CALL_END}" -}}}}
      {{%- endfor -%}}
      {{{{- "{TOOL_CALLS_END}" -}}}}
    {{%- elif "{END_THINK}" in content and not turn.after_tool -%}}
      {{{{- content.split("{END_THINK}", 1)[1] -}}}}
    {{%- else -%}}
      {{{{- content -}}}}
    {{%- endif -%}}
    {{{{- "{EOS}" -}}}}
    {{%- set turn.after_user = false -%}}
    {{%- set turn.after_tool = false -%}}
  {{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt and turn.after_user -%}}
  {{{{- "{ASSISTANT}" + ("{THINK}" if thinking else "{END_THINK}") -}}}}
{{%- endif -%}}
"""
