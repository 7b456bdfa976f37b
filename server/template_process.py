"""Chat templates rendered in processes that can be killed: jinja cannot be interrupted.

A template computes with what messages say, and one short expression can hold the interpreter for
minutes; no thread and no signal gets it back.
"""

import asyncio
import contextlib
import logging
import sys

import msgspec

from leadline.loader.chat_template import ChatTemplate
from leadline.loader.errors import TemplateError
from leadline.server.errors import UnavailableError
from leadline.server.template_messages import Launch, Rendered, Rendering

logger = logging.getLogger(__name__)

NUM_CHILDREN = 2
MAX_START_S = 60.0
CPU_MARGIN_S = 1.0
"""A child's own limit is for where nobody is left to kill it."""
MAX_ANSWER_BYTES = 2**30
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Rendered).decode


class TemplateTimeoutError(TemplateError):
    """The template did not come to an end in time, and its process was killed."""


class TemplateProcess:
    """Renders one chat template; for use within one event loop.

    While one process is busy, or is started anew, the others go on; one that has ended is replaced.
    """

    def __init__(self, template: ChatTemplate, *, timeout_s: float, memory_bytes: int) -> None:
        """Nothing is started yet.

        Args:
            template: what to render.
            timeout_s: that one rendering may take.
            memory_bytes: the same.
        """
        self._timeout_s = timeout_s
        launch = Launch(
            sources=template.sources,
            variables=template.variables,
            memory_bytes=memory_bytes,
            cpu_s=timeout_s + CPU_MARGIN_S,
        )
        self._children = [_Child(launch, timeout_s) for _ in range(NUM_CHILDREN)]
        self._idle: asyncio.LifoQueue[_Child] = asyncio.LifoQueue()
        self._restarts: set[asyncio.Task[None]] = set()
        self._is_started = self._is_closing = False
        self._problem: Exception | None = None

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that run."""
        return [child.process_id for child in self._children if child.process_id is not None]

    def start(self) -> None:
        """Start the processes ahead of the first request; does not wait until they are ready."""
        if not self._is_started:
            self._is_started = True
            for child in self._children:
                self._restart(child)

    async def check(self) -> None:
        """Start the processes, and wait until they have compiled the template.

        Raises:
            TemplateError: it is no valid jinja, or compiling it takes too long.
        """
        self.start()
        await asyncio.gather(*self._restarts)
        if isinstance(self._problem, TemplateError):
            raise self._problem

    async def render(self, job: Rendering) -> str:
        """The prompt's text.

        Raises:
            TemplateError: the template refuses the messages, fails on them, or takes too long.
            UnavailableError: no process is free in time, or none can be started.
        """
        self.start()
        data = _encode(job) + b"\n"
        for _ in range(NUM_CHILDREN + 1):
            child = await self._idle_child()
            is_whole = False
            try:
                rendered = await child.exchange(data, self._timeout_s)
                is_whole = True
            except TimeoutError:
                raise TemplateTimeoutError(
                    f"the chat template did not come to an end within {self._timeout_s:g} s on "
                    "these messages, and was stopped (--limit template_s)"
                ) from None
            except (EOFError, OSError):
                continue  # somebody has killed it
            finally:
                if is_whole:
                    self._idle.put_nowait(child)
                else:
                    self._restart(child)
            if rendered.error is not None:
                raise TemplateError(rendered.error)
            return rendered.text
        raise UnavailableError(
            "the processes that render chat templates keep ending; try again later",
            code="template_unavailable",
        )

    async def close(self) -> None:
        """End the processes."""
        self._is_closing = True
        tasks = list(self._restarts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for child in self._children:
            await child.end()

    async def _idle_child(self) -> "_Child":
        timeout_s = MAX_START_S + NUM_CHILDREN * self._timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                return await self._idle.get()
        except TimeoutError:
            raise UnavailableError(
                "too many chat templates are being rendered; try again later",
                code="template_unavailable",
            ) from None

    def _restart(self, child: "_Child") -> None:
        if not self._is_closing:
            task = asyncio.create_task(self._start_child(child))
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)

    async def _start_child(self, child: "_Child") -> None:
        try:
            await child.start()
        except (EOFError, OSError, TemplateError) as error:  # the next rendering tries again
            logger.warning("a process that renders chat templates did not start: %r", error)
            self._problem = error
        self._idle.put_nowait(child)


class _Child:
    """One process; it has one rendering at a time."""

    def __init__(self, launch: Launch, compile_s: float) -> None:
        self._launch = _encode(launch) + b"\n"
        self._compile_s = compile_s
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process, in place of the one before; returns when it is ready.

        Raises:
            EOFError, OSError: it does not start.
            TemplateError: the template is no valid jinja, or compiling it takes too long.
        """
        await self.end()
        # -P: the working directory must not hide installed packages.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "leadline.server.template_child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MAX_ANSWER_BYTES,
        )
        try:
            await self.exchange(self._launch, MAX_START_S)
        except TimeoutError:
            raise EOFError from None
        try:
            compiled = await self.exchange(b"\n", self._compile_s)
        except TimeoutError:
            await self.end()
            raise TemplateTimeoutError(
                f"the chat template cannot be compiled within {self._compile_s:g} s "
                "(--limit template_s)"
            ) from None
        if compiled.error is not None:
            raise TemplateError(compiled.error)

    async def exchange(self, data: bytes, timeout_s: float) -> Rendered:
        """Send a line; the answer.

        Raises:
            EOFError, OSError: the process has ended.
            TimeoutError: it says nothing.
        """
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise EOFError
        async with asyncio.timeout(timeout_s):
            self._process.stdin.write(data)
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return _decode(line)

    async def end(self) -> None:
        """Kill the process, if there is one."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
        self._process = None
