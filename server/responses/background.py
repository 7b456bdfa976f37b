"""Responses that are made whether or not their client waits for them."""

import asyncio
import logging
from contextlib import aclosing

from leadline.server.errors import ApiError
from leadline.server.responses.keeper import Keeper
from leadline.server.responses.response import fail
from leadline.server.responses.run import ResponseRun
from leadline.server.responses.store import RUNNING, ResponseStore
from leadline.server.state import ServerState

logger = logging.getLogger(__name__)
_LOOK_S = 0.25  # how often is looked whether another process has been asked to cancel


async def start(state: ServerState, run: ResponseRun, keeper: Keeper) -> None:
    """Keep a response as queued, and begin to make it.

    Args:
        state: the server's; it waits for the response before it ends.
        run: its `on_end` is the keeper's `update`.
        keeper: of the response.

    Raises:
        sqlite3.Error: the response cannot be kept.
    """
    run.response.status = "queued"
    await keeper.add(run.response)
    task = asyncio.create_task(_make(state, run, keeper))
    state.background.add(task)
    task.add_done_callback(state.background.discard)


async def _make(state: ServerState, run: ResponseRun, keeper: Keeper) -> None:
    """One response, until it has ended or is not wanted any more."""
    response = run.response
    with state.in_flight:
        work = asyncio.create_task(_follow(run, keeper))
        watch = asyncio.create_task(_until_cancelled(state.responses, response.id))
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            watch.cancel()
            (outcome, _) = await asyncio.gather(work, watch, return_exceptions=True)
        try:
            if isinstance(outcome, Exception):  # the edge of this task: nobody else would tell
                logger.error("the response %s failed", response.id, exc_info=outcome)
                fail(response, ApiError(500, "internal error; the log tells more"))
                await keeper.update(response)
            elif isinstance(outcome, asyncio.CancelledError):
                run.cancel()
                await keeper.update(response)
        except Exception:
            logger.exception("the end of the response %s could not be kept", response.id)


async def _follow(run: ResponseRun, keeper: Keeper) -> None:
    response = run.response
    try:
        async with aclosing(run.events()) as events:
            async for event, _ in events:
                if event == "response.in_progress":
                    response.status = "in_progress"
                    await keeper.update(response)
    except ApiError as error:
        if response.status in RUNNING:  # refused before it began; else its end has been kept
            fail(response, error)
            await keeper.update(response)


async def _until_cancelled(store: ResponseStore, response_id: str) -> None:
    while not await asyncio.to_thread(store.is_cancelled, response_id):
        await asyncio.sleep(_LOOK_S)
