"""What a request must satisfy to be taken at all."""

from leadline.engine.errors import InvalidRequestError, PromptTooLongError
from leadline.engine.executor.base import Capacity
from leadline.engine.request import EngineRequest


def check_fits(request: EngineRequest, capacity: Capacity) -> None:
    """Refuse a request that could never be completed, however long it waited.

    Raises:
        InvalidRequestError: an empty prompt, or no token to generate.
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
    num_tokens = num_prompt_tokens + max_tokens
    asked = f"{num_prompt_tokens} prompt tokens + max_tokens {max_tokens} = {num_tokens} tokens"
    if num_tokens > capacity.max_model_len:
        prompt_alone = num_prompt_tokens >= capacity.max_model_len
        raise PromptTooLongError(
            f"{asked}, but the model length is {capacity.max_model_len}; "
            "shorten the prompt or lower max_tokens",
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
