"""A prompt that ends within the last message: the answer goes on with it."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from leadline.loader.chat_template import ChatTemplate, reasoning_of
from leadline.loader.errors import TemplateError

_THINK_BEGIN, _THINK_END = "<think>", "</think>"


def render_open(
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **settings: Any,
) -> str:
    """The prompt's text up to and including the last message's, without what would end it.

    As transformers does for `continue_final_message`, the whole is rendered and cut. Reasoning of
    the last message is shown even by a template that leaves it out: in the form in which the
    template lets the model begin to think. Where there is reasoning and no content, the prompt ends
    within the reasoning.

    Args:
        template: the checkpoint's.
        messages: as in `ChatTemplate.render`, at least one.
        tools: the same.
        **settings: further variables of the template.

    Raises:
        TemplateError: the template refuses the messages, or does not show the last one.
    """
    *before, last = messages
    content, reasoning = last.get("content") or "", reasoning_of(last)
    token = secrets.token_hex(16)
    tag, thought_tag = f"CONTINUE_{token} ", f"THOUGHT_{token}"
    changes = {"content": content + tag}
    if reasoning:
        names = ("reasoning_content", "reasoning", "thinking")
        changes |= dict.fromkeys(names, reasoning + thought_tag)
    whole = template.render(
        [*before, {**last, **changes}], tools=tools, add_generation_prompt=False, **settings
    )
    if reasoning and thought_tag not in whole:
        settings |= {"thinking": True, "enable_thinking": True}
        begun = template.render(before, tools=tools, add_generation_prompt=True, **settings)
        if not begun.rstrip().endswith(_THINK_BEGIN):
            raise TemplateError(
                "the chat template shows no reasoning here; leave 'reasoning_content' out of the "
                "last message"
            )
        return f"{begun}{reasoning}{_THINK_END}{content}" if content else f"{begun}{reasoning}"
    if reasoning and not content:
        return whole[: whole.rindex(thought_tag)]
    return _cut(whole.replace(thought_tag, ""), tag, content)


def _cut(text: str, tag: str, shown: str) -> str:
    """The text before the tag; `shown` must be in it. A template that trims loses the blanks."""
    place = text.rfind(tag.strip())
    if place < 0 or shown.strip() not in text[:place]:
        raise TemplateError(
            "the chat template does not show all of the last message, so that it cannot be "
            "continued; leave parts like <think> out of its content"
        )
    return text[:place] if text.startswith(tag, place) else text[:place].rstrip()
