"""Responses that are made whether or not their client waits for them."""

import asyncio
import logging
from contextlib import aclosing

from leadline.server.errors import ApiError
from leadline.server.responses.event_log import EventLog
from leadline.server.responses.keeper import Keeper
from leadline.server.responses.records import RUNNING
from leadline.server.responses.response import fail
from leadline.server.responses.run import ResponseRun
from leadline.server.state import ServerState

logger = logging.getLogger(__name__)


async def start(
    state: ServerState, run: ResponseRun, keeper: Keeper, *, has_log: bool
) -> EventLog | None:
    """Keep a response as queued, and begin to make it.

    Args:
        state: the server's; it waits for the response before it ends.
        run: its `on_end` is the keeper's `update`.
        keeper: of the response.
        has_log: its events are kept.

    Returns:
        What keeps them.

    Raises:
        sqlite3.Error: the response cannot be kept.
    """
    run.response.status = "queued"
    await keeper.add(run.response, log="open" if has_log else None)
    log = EventLog(state.responses, run.response.id) if has_log else None
    for event in ("response.created", "response.queued"):
        _tell(log, run, event)
    task = asyncio.create_task(_make(state, run, keeper, log))
    state.background.tasks.add(task)
    task.add_done_callback(state.background.tasks.discard)
    return log


async def _make(state: ServerState, run: ResponseRun, keeper: Keeper, log: EventLog | None) -> None:
    """One response, until it has ended or is not wanted any more."""
    with state.in_flight:
        work = asyncio.create_task(_follow(run, keeper, log))
        with state.background.watched(run.response.id, work):
            (outcome,) = await asyncio.gather(work, return_exceptions=True)
        try:
            if outcome is not None:
                await _break_off(run, keeper, log, outcome)
        except Exception:  # the edge of this task: nobody else would tell
            logger.exception("the end of the response %s could not be kept", run.response.id)
        finally:
            if log is not None:
                await log.close()


async def _follow(run: ResponseRun, keeper: Keeper, log: EventLog | None) -> None:
    async with aclosing(run.events()) as events:
        async for event, fields in events:
            if event == "response.created":
                continue  # it was, when it was queued
            if event == "response.in_progress":
                run.response.status = "in_progress"
                await keeper.update(run.response)
            if log is not None:
                log.push(run.frame(event, fields))


async def _break_off(
    run: ResponseRun, keeper: Keeper, log: EventLog | None, reason: BaseException
) -> None:
    """Say that there will be no more of a response."""
    response = run.response
    if isinstance(reason, asyncio.CancelledError):
        run.cancel()
    elif not isinstance(reason, ApiError):
        logger.error("the response %s failed", response.id, exc_info=reason)
        fail(response, ApiError(500, "internal error; the log tells more"))
    elif response.status in RUNNING:  # refused before it began; else its end has been kept
        fail(response, reason)
    await keeper.update(response)
    # No event is known for a cancelled response; clients know this one as the end of a stream.
    is_cancelled = response.status == "cancelled"
    _tell(log, run, "response.incomplete" if is_cancelled else f"response.{response.status}")


def _tell(log: EventLog | None, run: ResponseRun, event: str) -> None:
    if log is not None:
        log.push(run.frame(event, {"response": run.response}))
