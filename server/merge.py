"""Several choices' deltas as one stream."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from leadline.server.delta import Delta

_MAX_UNREAD_DELTAS = 16  # a choice; what comes after them waits in the engine's client


async def merge(
    streams: Sequence[AsyncGenerator[Delta, None]],
) -> AsyncGenerator[Delta, None]:
    """What several streams yield, as it comes; the first failure ends all."""
    queue: asyncio.Queue[Delta | asyncio.Task[None]] = asyncio.Queue()
    room = asyncio.Semaphore(_MAX_UNREAD_DELTAS * len(streams))

    async def pump(stream: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(stream):
            async for delta in stream:
                await room.acquire()
                queue.put_nowait(delta)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    for task in tasks:
        task.add_done_callback(queue.put_nowait)
    num_open = len(tasks)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, Delta):
                room.release()
                yield item
            else:
                item.result()  # raises what ended the stream
                num_open -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
