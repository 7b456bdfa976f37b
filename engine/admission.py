"""What a request must satisfy to be taken at all, and how many may wait."""

from typing import Literal

import msgspec

from leadline.engine.bounds import check_bounds, check_token_ids
from leadline.engine.errors import InvalidRequestError, PromptTooLongError, QueueFullError
from leadline.engine.executor.base import Capacity
from leadline.engine.request import EngineRequest

RejectionReason = Literal["max_queued_requests", "max_queued_tokens"]


class QueueLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait for room in the batch; None for as much as comes.

    Attributes:
        max_requests: requests beyond those for which the batch has seats.
        max_tokens: prompt tokens of waiting requests.
    """

    max_requests: int | None = None
    max_tokens: int | None = None

    def rejection(
        self, *, num_waiting: int, num_seats: int, num_tokens: int
    ) -> RejectionReason | None:
        """Why one more request cannot be taken, or None.

        Args:
            num_waiting: requests that wait.
            num_seats: seats in the batch that nobody has.
            num_tokens: tokens that would wait, the new request's included.
        """
        if self.max_requests is not None and num_waiting - num_seats >= self.max_requests:
            return "max_queued_requests"
        if self.max_tokens is not None and num_waiting > 0 and num_tokens > self.max_tokens:
            return "max_queued_tokens"
        return None


def queue_full(
    reason: RejectionReason, limits: QueueLimits, retry_after_s: float
) -> QueueFullError:
    """What a refused request is told."""
    limit = limits.max_requests if reason == "max_queued_requests" else limits.max_tokens
    unit = "requests" if reason == "max_queued_requests" else "prompt tokens"
    return QueueFullError(
        f"the queue is full ({reason} is {limit} {unit}); send the request again later",
        retry_after_s=retry_after_s,
    )


def check_fits(request: EngineRequest, capacity: Capacity) -> None:
    """Refuse a request that could never be completed, however long it waited.

    Raises:
        InvalidRequestError: an empty prompt, no token to generate, ids that are no tokens, or
            parameters beyond the engine's bounds.
        PromptTooLongError: more tokens than the model length or the page pool can hold.
    """
    num_prompt_tokens = len(request.prompt_ids)
    max_tokens = request.params.max_tokens
    if num_prompt_tokens < 1:
        raise InvalidRequestError("the prompt is empty; give at least 1 token", param="prompt")
    if max_tokens < 1:
        raise InvalidRequestError(
            f"max_tokens is {max_tokens}; give at least 1", param="max_tokens"
        )
    check_bounds(request)
    if capacity.vocab_size:
        check_token_ids(request, capacity.vocab_size)
    num_tokens = num_prompt_tokens + max_tokens
    asked = f"{num_prompt_tokens} prompt tokens + max_tokens {max_tokens} = {num_tokens} tokens"
    if num_tokens > capacity.max_model_len:
        prompt_alone = num_prompt_tokens >= capacity.max_model_len
        raise PromptTooLongError(
            f"This model's maximum context length is {capacity.max_model_len} tokens, but you "
            f"requested {num_tokens} tokens ({num_prompt_tokens} in the prompt, {max_tokens} for "
            "the answer); shorten the prompt or lower max_tokens",
            param="prompt" if prompt_alone else "max_tokens",
        )
    num_pages = -(-num_tokens // capacity.page_size)
    if num_pages > capacity.num_pages:
        raise PromptTooLongError(
            f"{asked} need {num_pages} pages of {capacity.page_size}, but the cache has "
            f"{capacity.num_pages}; shorten the prompt, lower max_tokens, or give the server a "
            "larger cache",
            param="max_tokens",
        )
