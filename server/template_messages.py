"""What the server and the processes that render chat templates say to each other."""

from typing import Any

import msgspec

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.final_message import render_open


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: what to render; see `ChatTemplate`.

    Attributes:
        memory_bytes: that rendering may take.
        cpu_s: processor time of one rendering, and of compiling; then the process ends.
    """

    sources: dict[str, str]
    variables: dict[str, Any]
    memory_bytes: int
    cpu_s: float


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """Messages to be rendered; see `ChatTemplate.render`.

    Attributes:
        continue_final_message: the prompt ends within the last one; see `render_open`.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    settings: dict[str, Any] = {}

    def render(self, template: ChatTemplate) -> str:
        """The prompt's text.

        Raises:
            TemplateError: as `ChatTemplate.render`.
        """
        if self.continue_final_message:
            return render_open(template, self.messages, tools=self.tools, **self.settings)
        return template.render(
            self.messages,
            tools=self.tools,
            add_generation_prompt=self.add_generation_prompt,
            **self.settings,
        )


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The text, or a sentence for the user."""

    text: str = ""
    error: str | None = None
