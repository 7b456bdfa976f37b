"""The engine's process, from the server's side: started, and ended where it hangs."""

import asyncio
from collections.abc import Callable

from leadline.engine.client import EngineClient
from leadline.engine.engine_process import EngineProcess
from leadline.engine.messages import Ready
from leadline.server.engine_protocol import Engine

_LIFE_CHECK_S = 0.2


async def start_engine(
    engine: EngineProcess, client: EngineClient, on_stage: Callable[[str], None]
) -> Ready:
    """Start the engine and wait until it can serve."""
    await engine.start(on_stage)
    return await client.attach()


async def cause_of_death(
    engine: EngineProcess, client: Engine, *, timeout_s: float, loading_timeout_s: float
) -> str:
    """Wait until the engine is gone for good, ending it where it hangs; returns why.

    Args:
        engine: the process.
        client: sees how it fares.
        timeout_s: it hangs if it has work and completes no step for so long; 0 for never.
        loading_timeout_s: the same while it gives up memory or takes it back, with no news of it.
    """
    watcher = asyncio.create_task(_end_hangs(engine, client, timeout_s, loading_timeout_s))
    try:
        return str(await engine.wait_ended())
    finally:
        watcher.cancel()


async def _end_hangs(
    engine: EngineProcess, client: Engine, timeout_s: float, loading_timeout_s: float
) -> None:
    num_late = 0
    while True:
        await asyncio.sleep(_LIFE_CHECK_S)
        activity = client.progress.activity
        limit_s = loading_timeout_s if activity else timeout_s
        is_late = client.alive and 0 < limit_s < client.progress.waiting_s
        num_late = num_late + 1 if is_late else 0
        if num_late != 2:  # not just this process, which may have been stopped: news would be here
            continue
        if activity:
            engine.kill(
                f"it told of nothing new for {limit_s:g} s (--loading-timeout) while it was busy "
                f"with: {activity}; it was killed"
            )
        else:
            engine.kill(
                f"it had work and did not complete a step for {limit_s:g} s (--engine-timeout), "
                "and was killed"
            )
