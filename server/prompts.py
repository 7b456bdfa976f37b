"""Text to token ids, off the event loop where it takes long."""

import asyncio

from leadline.server.errors import BadRequestError
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
