"""The server's side of grammars: is this one good, answered by a process that can be killed."""

import asyncio
import contextlib
import hashlib
import logging
import sys
from collections import OrderedDict
from pathlib import Path

import msgspec

from leadline.engine.errors import EngineError, InvalidRequestError, QueueFullError
from leadline.engine.grammar.compilation import check_size
from leadline.engine.grammar.limits import CheckLimits
from leadline.engine.grammar.verdict import Launch, Verdict
from leadline.engine.request import Grammar

logger = logging.getLogger(__name__)

NUM_CHILDREN = 2
MAX_VERDICTS = 4096
"""Remembered; about 0.3 kB each."""

MAX_START_S = 60.0
"""Seconds that a child may take to read the tokenizer."""

MAX_WAIT_S = 0.5
"""Seconds that a grammar waits for a child that is not busy."""

_NO_GRAMMARS = (
    "no schema, expression or grammar can be kept to with this model's tokenizer (the server's log "
    "says why); leave it out"
)
_ANSWER_MARGIN_S = 0.3
"""A child's own limits end a check; one that still says nothing so much later is killed."""


class GrammarChecker:
    """Checks grammars in child processes; for use within one event loop."""

    def __init__(self, directory: Path, limits: CheckLimits | None = None) -> None:
        """Children are started by `start` or at the first check.

        Args:
            directory: of the checkpoint.
            limits: what a check may take; None for the usual.
        """
        self._directory = directory
        self._limits = limits or CheckLimits()
        self._children: list[_Child] = []
        self._idle: asyncio.Queue[_Child] = asyncio.Queue()
        self._restarts: set[asyncio.Task[None]] = set()
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[Verdict]] = {}
        self._failure: str | None = None
        self._is_told = False
        self._is_closing = False

    def __len__(self) -> int:
        """How many verdicts are remembered."""
        return len(self._verdicts)

    @property
    def process_ids(self) -> list[int]:
        """The operating system processes of the children."""
        return [child.process_id for child in self._children if child.process_id is not None]

    async def start(self) -> None:
        """Start the children ahead of the first request; does not wait until they are ready."""
        if not self._children:
            self._children = [_Child(self._directory, self._limits) for _ in range(NUM_CHILDREN)]
            for child in self._children:
                self._restart(child)

    async def check(self, grammar: Grammar) -> None:
        """Return if the grammar can be used.

        Raises:
            InvalidRequestError: it is wrong, too large, or too slow, or no grammar can be used with
                this tokenizer; the message says which.
            QueueFullError: too many other grammars are being checked.
        """
        check_size(grammar)
        data = grammar.text.encode()
        key = hashlib.sha256(f"{grammar.kind} ".encode() + data).digest()
        verdict = self._verdicts.get(key)
        if verdict is None:
            # One check for all who ask at once; none of them, by leaving, takes it from the others.
            task = self._running.get(key)
            if task is None:
                task = asyncio.create_task(self._ask(grammar))
                self._running[key] = task
                task.add_done_callback(lambda done: self._forget(key, done))
            verdict = await asyncio.shield(task)
            if verdict.is_lasting:
                self._verdicts[key] = verdict
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
        while len(self._verdicts) > MAX_VERDICTS:
            self._verdicts.popitem(last=False)
        if verdict.error is not None:
            raise InvalidRequestError(verdict.error)

    async def close(self) -> None:
        """End the children; checks that are under way are cancelled."""
        self._is_closing = True
        tasks = [*self._running.values(), *self._restarts]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for child in self._children:
            await child.end()

    def _forget(self, key: bytes, task: asyncio.Task[Verdict]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits for it any more

    async def _ask(self, grammar: Grammar) -> Verdict:
        await self.start()
        for _ in range(NUM_CHILDREN):
            child = await self._idle_child()
            is_whole = False
            try:
                verdict = await child.ask(grammar)
                is_whole = True
                return verdict
            except TimeoutError:
                break
            except (EOFError, ConnectionError):
                continue  # it was gone before, perhaps: somebody has killed it
            finally:
                if is_whole:
                    self._idle.put_nowait(child)
                else:
                    self._restart(child)
        return Verdict("the grammar could not be checked; simplify it", is_lasting=False)

    async def _idle_child(self) -> "_Child":
        """A child that is ready.

        Raises:
            QueueFullError: there is none in time.
            InvalidRequestError: there will be none.
        """
        if self._failure is not None:
            raise self._refusal(self._failure)
        is_started = any(child.is_ready for child in self._children)
        try:
            async with asyncio.timeout(MAX_WAIT_S if is_started else MAX_START_S):
                child = await self._idle.get()
        except TimeoutError:
            raise QueueFullError(
                "too many new grammars are being checked; try again", retry_after_s=1.0
            ) from None
        if self._failure is not None:
            self._idle.put_nowait(child)  # whoever waits, too, has to hear of it
            raise self._refusal(self._failure)
        return child

    def _refusal(self, failure: str) -> InvalidRequestError:
        if not self._is_told:
            self._is_told = True
            logger.error("grammars cannot be used: %s", failure)
        return InvalidRequestError(_NO_GRAMMARS)

    def _restart(self, child: "_Child") -> None:
        if self._is_closing:
            return
        task = asyncio.create_task(self._start_child(child))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _start_child(self, child: "_Child") -> None:
        try:
            await child.start()
        except (EOFError, OSError, TimeoutError) as error:  # the next check tries again
            logger.warning("a process that checks grammars did not start: %r", error)
        except EngineError as error:
            self._failure = str(error)
        self._idle.put_nowait(child)


class _Child:
    """One process; it has one grammar at a time."""

    def __init__(self, directory: Path, limits: CheckLimits) -> None:
        self._directory = directory
        self._limits = limits
        self._process: asyncio.subprocess.Process | None = None
        self.is_ready = False

    @property
    def process_id(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process, in place of the one before; returns when it is ready.

        Raises:
            EngineError: it cannot work; the message says why.
            EOFError: it has ended without a word.
            TimeoutError: it takes too long.
        """
        await self.end()
        # -P: the working directory must not hide installed packages.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "leadline.engine.grammar.check_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        verdict = await self._exchange(Launch(str(self._directory), self._limits), MAX_START_S)
        if verdict.error is not None:
            raise EngineError(verdict.error)
        self.is_ready = True

    async def ask(self, grammar: Grammar) -> Verdict:
        """What the process says of a grammar.

        Raises:
            EOFError, ConnectionError: it has ended.
            TimeoutError: it says nothing.
        """
        if not self.is_ready:
            raise EOFError
        return await self._exchange(grammar, self._limits.wall_s + _ANSWER_MARGIN_S)

    async def end(self) -> None:
        """Kill the process, if there is one."""
        self.is_ready = False
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
            self._process = None

    async def _exchange(self, message: msgspec.Struct, timeout_s: float) -> Verdict:
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with asyncio.timeout(timeout_s):
            stdin.write(msgspec.json.encode(message) + b"\n")
            await stdin.drain()
            line = await stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return msgspec.json.decode(line, type=Verdict)
