"""The server's side of grammars: is this one good, answered by a process that can be killed."""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from pathlib import Path

import msgspec

from leadline.engine.child_pool import MAX_START_S, Child, ChildPool, PoolBusyError
from leadline.engine.errors import EngineError, InvalidRequestError, QueueFullError
from leadline.engine.grammar.limits import CheckLimits
from leadline.engine.grammar.source import check_size
from leadline.engine.grammar.verdict import Launch, Verdict
from leadline.engine.request import Grammar

logger = logging.getLogger(__name__)

NUM_CHILDREN = 2
MAX_VERDICTS = 4096
"""Remembered; about 0.3 kB each."""

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
        self._pool = ChildPool("leadline.engine.grammar.check_process", NUM_CHILDREN, self._begin)
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._running: dict[bytes, asyncio.Task[Verdict]] = {}
        self._is_told = False

    def __len__(self) -> int:
        """How many verdicts are remembered."""
        return len(self._verdicts)

    @property
    def process_ids(self) -> list[int]:
        """The operating system processes of the children."""
        return self._pool.process_ids

    async def start(self) -> None:
        """Start the children ahead of the first request; does not wait until they are ready."""
        self._pool.start()

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
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pool.close()

    def _forget(self, key: bytes, task: asyncio.Task[Verdict]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, even if nobody waits for it any more

    async def _ask(self, grammar: Grammar) -> Verdict:
        try:
            answer = await self._pool.ask(
                msgspec.json.encode(grammar),
                self._limits.wall_s + _ANSWER_MARGIN_S,
                wait_s=MAX_WAIT_S,
            )
        except PoolBusyError:
            raise QueueFullError(
                "too many new grammars are being checked; try again", retry_after_s=1.0
            ) from None
        except (EOFError, TimeoutError):
            return Verdict("the grammar could not be checked; simplify it", is_lasting=False)
        except EngineError as error:
            if not self._is_told:
                self._is_told = True
                logger.error("grammars cannot be used: %s", error)
            raise InvalidRequestError(_NO_GRAMMARS) from None
        return msgspec.json.decode(answer, type=Verdict)

    async def _begin(self, child: Child) -> None:
        launch = msgspec.json.encode(Launch(str(self._directory), self._limits))
        verdict = msgspec.json.decode(await child.exchange(launch, MAX_START_S), type=Verdict)
        if verdict.error is not None:
            raise EngineError(verdict.error)
