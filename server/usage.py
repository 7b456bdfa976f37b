"""The tokens of a request, and what drafts did for it, as the API tells them."""

from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from leadline.engine.request import SpeculationCounts


@dataclass(slots=True)
class Usage:
    """Tokens of one request: each prompt counted once, the tokens of all choices together.

    Attributes:
        num_cached_tokens: prompt tokens from the prefix cache, by prompt.
        num_output_tokens: by choice.
        num_thinking_tokens: by choice; None if the model's thinking is not marked.
        speculation: of the choices that have ended.
    """

    num_prompt_tokens: int
    num_cached_tokens: list[int]
    num_output_tokens: list[int]
    num_thinking_tokens: list[int] | None = None
    speculation: list[SpeculationCounts] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The API's `usage` object."""
        num_output_tokens = sum(self.num_output_tokens)
        num_cached_tokens = sum(self.num_cached_tokens)
        return {
            "prompt_tokens": self.num_prompt_tokens,
            "completion_tokens": num_output_tokens,
            "total_tokens": self.num_prompt_tokens + num_output_tokens,
            "prompt_tokens_details": {"cached_tokens": num_cached_tokens},
            "completion_tokens_details": {
                "reasoning_tokens": sum(self.num_thinking_tokens or ()),
                # OpenAI's count of the client's own `prediction`, not of drafts.
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
            # DeepSeek's names
            "prompt_cache_hit_tokens": num_cached_tokens,
            "prompt_cache_miss_tokens": self.num_prompt_tokens - num_cached_tokens,
        }

    def num_cache_writes(self, page_size: int) -> int:
        """Prompt tokens that are in the prefix cache from now on: in full pages, and not read.

        Args:
            page_size: tokens a cache page; 0 if nothing is cached.
        """
        num_in_full_pages = self.num_prompt_tokens // page_size * page_size if page_size else 0
        return max(num_in_full_pages - sum(self.num_cached_tokens), 0)

    def metrics(self) -> dict[str, Any] | None:
        """The API's `metrics` object; None if no choice has told of drafts."""
        if not self.speculation:
            return None
        return {"speculative_decoding": _speculation_json(self.speculation)}


def _speculation_json(counts: list[SpeculationCounts]) -> dict[str, Any]:
    """Counts of several choices together, under vLLM's names; ratios of nothing are null."""
    num_steps = sum(count.num_steps for count in counts)
    num_drafts = sum(count.num_draft_tokens for count in counts)
    per_position = _sums([count.num_accepted_per_pos for count in counts])
    num_accepted = sum(per_position)
    return {
        "mean_acceptance_length": 1 + num_accepted / num_steps if num_steps else None,
        "draft_acceptance_rate": num_accepted / num_drafts if num_drafts else None,
        "acceptance_histogram": _sums([count.num_accepted_per_step for count in counts]),
        "num_spec_steps": num_steps,
        "num_accepted_draft_tokens": num_accepted,
        "num_draft_tokens": num_drafts,
        "num_accepted_tokens_per_pos": per_position,
    }


def _sums(rows: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip_longest(*rows, fillvalue=0)]
