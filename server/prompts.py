"""Text to token ids, off the event loop where it takes long."""

import asyncio

from leadline.server.errors import BadRequestError
from leadline.server.sampling_types import SamplingFields
from leadline.server.state import ServerState

_QUICK_CHARS = 20_000
# No token of the family is longer, so a text beyond this many a token cannot fit.
_MAX_TOKEN_CHARS = 256


async def encode_text(state: ServerState, text: str, param: str) -> list[int]:
    """The token ids of a prompt's text.

    Raises:
        BadRequestError: the text is too long to be worth counting, or it is empty.
    """
    if len(text) > state.max_model_len * _MAX_TOKEN_CHARS:
        at_least = -(-len(text) // _MAX_TOKEN_CHARS)
        raise BadRequestError(
            f"This model's maximum context length is {state.max_model_len} tokens, but you "
            f"requested {at_least + 1} tokens or more ({at_least} or more in the prompt, 1 or more "
            f"for the answer); shorten the prompt, which has {len(text)} characters",
            param=param,
            code="context_length_exceeded",
        )
    if len(text) > _QUICK_CHARS:
        token_ids = await asyncio.to_thread(state.tokenizer.encode, text)
    else:
        token_ids = state.tokenizer.encode(text)
    return token_ids


def truncated(
    state: ServerState, fields: SamplingFields, prompt_ids: list[int], *, num_prefix: int = 0
) -> list[int]:
    """As much of a prompt as the request wants of it.

    Args:
        state: the server's.
        fields: the request's.
        prompt_ids: the whole prompt.
        num_prefix: its first tokens, which stay: the client has not written them.
    """
    most = fields.truncate_prompt_tokens
    if most == -1:
        most = state.max_model_len - max(fields.output_limit or 1, 1)
    if most is None or most < 1 or len(prompt_ids) <= most:
        return prompt_ids
    if fields.truncation_side == "right":
        return prompt_ids[:most]
    num_prefix = min(num_prefix, most)
    return prompt_ids[:num_prefix] + prompt_ids[len(prompt_ids) - most + num_prefix :]
