"""Outputs cut where their accepted drafts end, for requests that want to see these."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from msgspec.structs import replace

from leadline.engine.request import RequestOutput


async def split_at_drafts(
    outputs: AsyncGenerator[RequestOutput, None],
) -> AsyncGenerator[RequestOutput, None]:
    """The same tokens, in outputs whose tokens are either all accepted drafts or none."""
    async with aclosing(outputs):
        async for output in outputs:
            for piece in pieces_of(output):
                yield piece


def pieces_of(output: RequestOutput) -> Iterator[RequestOutput]:
    """The accepted drafts of an output, and the rest of it; what ends it comes with the last."""
    count = output.num_accepted
    if not 0 < count < len(output.token_ids):
        yield output
        return
    logprobs = output.logprobs
    yield replace(
        output,
        token_ids=output.token_ids[:count],
        logprobs=None if logprobs is None else logprobs[:count],
        finish_reason=None,
        stop_token_id=None,
        speculation=None,
    )
    yield replace(
        output,
        token_ids=output.token_ids[count:],
        logprobs=None if logprobs is None else logprobs[count:],
        prompt_logprobs=None,
        num_accepted=0,
    )
