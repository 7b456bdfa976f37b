"""One request of a workload, before it is sent."""

from dataclasses import dataclass
from typing import Any

Prompt = str | list[int] | list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Sample:
    """What to ask.

    Attributes:
        prompt: text, token ids, or the messages of a chat.
        num_tokens: of the prompt, as asked for; None if unknown.
        num_output_tokens: at most.
    """

    prompt: Prompt
    num_tokens: int | None
    num_output_tokens: int
