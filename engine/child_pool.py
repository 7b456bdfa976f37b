"""Processes that can be killed, for work that nothing else can stop: a line to one, a line back."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable

from leadline.engine.errors import EngineError

logger = logging.getLogger(__name__)
_LINE_BYTES = 2**16
MAX_START_S = 60.0
"""Seconds that a process may take until it is ready, or until it says anything."""


class PoolBusyError(Exception):
    """No process is free in time."""


class Child:
    """One process; it is asked one thing at a time.

    Attributes:
        is_ready: it knows what it has to know, and has not been replaced since.
    """

    def __init__(self, module: str, line_bytes: int, *, is_silent: bool) -> None:
        self._module = module
        self._line_bytes = line_bytes
        self._stderr = asyncio.subprocess.DEVNULL if is_silent else None
        self._process: asyncio.subprocess.Process | None = None
        self.is_ready = False

    @property
    def process_id(self) -> int | None:
        """None while there is no process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process, in place of the one before."""
        await self.end()
        # -P: the working directory must not hide installed packages.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._stderr,
            limit=self._line_bytes,
        )

    async def exchange(self, line: bytes, timeout_s: float) -> bytes:
        """Send a line, without its end; the answer, with it.

        Raises:
            EOFError, OSError: the process has ended.
            TimeoutError: it says nothing.
        """
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise EOFError
        async with asyncio.timeout(timeout_s):
            self._process.stdin.write(line + b"\n")
            await self._process.stdin.drain()
            answer = await self._process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise EOFError
        return answer

    async def end(self) -> None:
        """Kill the process, if there is one."""
        self.is_ready = False
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        # asyncio has no other way to close output that has not been read to its end.
        self._process._transport.close()  # type: ignore[attr-defined]
        await self._process.wait()
        self._process = None


class ChildPool:
    """Some processes of one module; for use within one event loop.

    While one is busy, or is started anew, the others go on; one that has ended, or says nothing in
    time, is replaced.

    Attributes:
        failure: why none can do its work, as `begin` has found.
    """

    def __init__(
        self,
        module: str,
        num_children: int,
        begin: Callable[[Child], Awaitable[None]],
        *,
        line_bytes: int = _LINE_BYTES,
        is_silent: bool = False,
    ) -> None:
        """Nothing is started yet.

        Args:
            module: run as `python -m`.
            num_children: how many processes.
            begin: tells a new process what it has to know; an `EngineError` that it raises is kept
                as `failure`.
            line_bytes: most bytes of an answer.
            is_silent: the processes' standard error is dropped.
        """
        self.failure: EngineError | None = None
        self._module = module
        self._begin = begin
        self._children = [
            Child(module, line_bytes, is_silent=is_silent) for _ in range(num_children)
        ]
        self._idle: asyncio.LifoQueue[Child] = asyncio.LifoQueue()
        self._starts: set[asyncio.Task[None]] = set()
        self._is_started = self._is_closing = False

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run."""
        return [child.process_id for child in self._children if child.process_id is not None]

    def start(self) -> None:
        """Start the processes, if that has not been done; does not wait until they are ready."""
        if not self._is_started:
            self._is_started = True
            for child in self._children:
                self._restart(child)

    async def wait_until_started(self) -> None:
        """Return when all that are being started are ready, or have failed."""
        await asyncio.gather(*self._starts)

    async def ask(self, line: bytes, timeout_s: float, *, wait_s: float) -> bytes:
        """What a process answers; it is started first if need be.

        Args:
            line: as `Child.exchange` has it.
            timeout_s: that the process may take; it is killed then.
            wait_s: that the line may wait for a process that is busy; for one that is being started
                it may wait as long as that may take.

        Raises:
            PoolBusyError: none is free.
            TimeoutError: it has been killed.
            EOFError: one after the other has ended by itself.
            EngineError: `failure`.
        """
        self.start()
        for _ in range(len(self._children) + 1):
            child = await self._take(wait_s)
            is_whole = False
            try:
                answer = await child.exchange(line, timeout_s)
                is_whole = True
                return answer
            except TimeoutError:
                raise
            except (EOFError, OSError):
                continue  # it was gone before, perhaps: somebody has killed it
            finally:
                if is_whole:
                    self._idle.put_nowait(child)
                else:
                    self._restart(child)
        raise EOFError

    async def close(self) -> None:
        """End the processes."""
        self._is_closing = True
        starts = list(self._starts)
        for task in starts:
            task.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        for child in self._children:
            await child.end()

    async def _take(self, wait_s: float) -> Child:
        if self.failure is None:
            is_any_ready = any(child.is_ready for child in self._children)
            try:
                async with asyncio.timeout(wait_s if is_any_ready else max(wait_s, MAX_START_S)):
                    child = await self._idle.get()
            except TimeoutError:
                raise PoolBusyError from None
            if self.failure is None:
                return child
            self._idle.put_nowait(child)  # whoever waits, too, has to hear of it
        raise self.failure

    def _restart(self, child: Child) -> None:
        child.is_ready = False
        if not self._is_closing:
            task = asyncio.create_task(self._start(child))
            self._starts.add(task)
            task.add_done_callback(self._starts.discard)

    async def _start(self, child: Child) -> None:
        try:
            await child.start()
            await self._begin(child)
            child.is_ready = True
        except (EOFError, OSError) as error:  # whoever asks next tries again
            logger.warning("a process of %s did not start: %r", self._module, error)
            await child.end()
        except EngineError as error:
            self.failure = error
            await child.end()
        self._idle.put_nowait(child)
