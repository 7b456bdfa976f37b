"""Sends samples as they are due, so many at a time, and collects the records."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from leadline.server.bench.asking import Asker
from leadline.server.bench.record import Record
from leadline.server.bench.sample import Sample


async def run_load(
    asker: Asker,
    samples: Sequence[Sample],
    due_s: Sequence[float],
    *,
    max_concurrency: int | None,
    id_prefix: str,
    on_record: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Ask for all samples; gives their records in the same order.

    Args:
        asker: of the endpoint.
        samples: what to ask.
        due_s: when each is sent, from now on; later if `max_concurrency` are under way.
        max_concurrency: None for as many as are due.
        id_prefix: of the request ids; their number follows.
        on_record: called at the end of each request.
    """
    room = asyncio.Semaphore(max_concurrency) if max_concurrency else contextlib.nullcontext()

    async def ask(number: int, sample: Sample) -> Record:
        arrival_s = time.perf_counter()
        async with room:
            record = await asker.ask(sample, f"{id_prefix}{number}")
        record.queue_s = record.start_s - arrival_s
        on_record(record)
        return record

    begin_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number, (sample, at_s) in enumerate(zip(samples, due_s, strict=True)):
            wait_s = begin_s + at_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            tasks.append(group.create_task(ask(number, sample)))
    return [task.result() for task in tasks]
